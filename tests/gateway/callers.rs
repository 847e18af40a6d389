//! Who a caller is, and which side that leads to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::harness::*;

async fn both() -> Harness {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("stable").await], &[named("candidate").await])
        .await;
    gateway
}

/// The side that answers a request with these headers and this body, asked three times.
async fn side(gateway: &Harness, headers: &[(&str, &str)], body: Option<&Value>) -> String {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut request = match body {
            Some(body) => post(gateway.url("/predict"), body),
            None => get(gateway.url("/predict")),
        };
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let answer = call(&gateway.http, request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.push(answer.text().to_owned());
    }
    assert!(seen.iter().all(|s| *s == seen[0]), "it sticks: {seen:?}");
    seen.remove(0)
}

#[tokio::test]
async fn a_caller_sticks_by_header_cookie_or_body_field_as_the_release_says() {
    let gateway = both().await;
    let sticky = json!({"sticky": [{"header": "X-User"}, {"cookie": "sid"}, {"field": "parameters.session"}]});
    gateway.traffic_policy(50, 1, sticky).await;
    let mut sides = Vec::new();
    for i in 0..12 {
        let key = format!("caller-{i}");
        let ours = side(&gateway, &[("x-perennial-key", &key)], None).await;
        let cookie = format!("theme=dark; sid={key}");
        let body = json!({"parameters": {"session": key}, "inputs": []});
        for same in [
            side(&gateway, &[("x-user", &key)], None).await,
            side(&gateway, &[("cookie", &cookie)], None).await,
            side(&gateway, &[], Some(&body)).await,
            // The first that is there counts.
            side(
                &gateway,
                &[("x-user", &key), ("cookie", "sid=another")],
                Some(&json!({"parameters": {"session": "a third"}})),
            )
            .await,
        ] {
            assert_eq!(same, ours, "{key}");
        }
        sides.push(ours);
    }
    assert!(sides.contains(&"stable".into()) && sides.contains(&"candidate".into()));
    assert_eq!(gateway.count("perennial_gateway_unkeyed_total").await, 0);
    // A body that is no object has no such field, and is passed on as it is.
    let list = post(gateway.url("/predict"), &json!([1, 2]));
    assert_eq!(call(&gateway.http, list).await.status, 200);
    assert_eq!(gateway.count("perennial_gateway_unkeyed_total").await, 1);
}

#[tokio::test]
async fn a_caller_reaches_a_side_by_header_only_where_that_is_switched_on() {
    let gateway = both().await;
    let ask = [("x-side", "candidate"), ("x-perennial-key", "k")];
    let on = json!({"override": {"header": "x-side"}});
    gateway.weight(1, 1).await;
    assert_eq!(side(&gateway, &ask, None).await, "stable", "it is off");
    gateway.traffic_policy(1, 2, on.clone()).await;
    assert_eq!(side(&gateway, &ask, None).await, "candidate");
    gateway.traffic_policy(100, 3, on.clone()).await;
    let back = [("x-side", "stable"), ("x-perennial-key", "k")];
    assert_eq!(side(&gateway, &back, None).await, "stable");
    let odd = [("x-side", "whatever"), ("x-perennial-key", "k")];
    assert_eq!(side(&gateway, &odd, None).await, "candidate");
    gateway.traffic_policy(0, 4, on).await;
    assert_eq!(
        side(&gateway, &ask, None).await,
        "stable",
        "at weight 0 nobody gets the candidate"
    );
    assert_eq!(gateway.count("perennial_gateway_overridden_total").await, 6);
    // Whoever chooses is no sample: the candidate has the three requests at 100 % that didn't choose.
    assert_eq!(gateway.traffic(CANDIDATE).await.requests, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_are_split_within_half_a_percent() {
    let gateway = Arc::new(both().await);
    gateway.weight(10, 1).await;
    let share = share(&gateway, |i| Some(format!("user-{i}"))).await;
    assert!((share - 0.10).abs() <= 0.005, "{share}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_without_a_key_are_split_within_a_tenth_of_a_percent_at_the_hardest_weight()
 {
    let gateway = Arc::new(both().await);
    gateway.weight(50, 1).await;
    // By chance, one run in six would be as near as this.
    let share = share(&gateway, |_| None).await;
    assert!((share - 0.50).abs() <= 0.001, "{share}");
}

/// Ten thousand callers, eight at a time: the candidate's share.
async fn share(
    gateway: &Arc<Harness>,
    key: impl Fn(usize) -> Option<String> + Copy + Send + 'static,
) -> f64 {
    const CALLERS: usize = 10_000;
    let (next, tried) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (gateway, next, tried) = (gateway.clone(), next.clone(), tried.clone());
            tokio::spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= CALLERS {
                        return;
                    }
                    let answer = gateway.get("/", key(i).as_deref()).await;
                    if answer.header("x-perennial-revision") == CANDIDATE {
                        tried.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    tried.load(Ordering::Relaxed) as f64 / CALLERS as f64
}
