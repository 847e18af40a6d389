//! Watches that break.

use std::sync::{Arc, Mutex};

use perennial::{
    api::PromptRelease,
    cluster::{AnyStore, Caches, Key, Kind},
};
use tokio_util::sync::CancellationToken;

use crate::harness::{
    eventually,
    faults::{Break, Faults},
    on_cluster,
};

#[test]
fn what_happens_while_nobody_watches_is_noticed_deletes_included() {
    on_cluster(|place| async move {
        let faults = Faults::none();
        let caches = Caches::new(std::slice::from_ref(&place.namespace));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        caches.subscribe(Arc::new(move |_, change| {
            if change.kind == Kind::PromptRelease {
                log.lock()
                    .unwrap()
                    .push((change.key.name.clone(), change.deleted));
            }
        }));
        place.create(&place.prompt_release("kept")).await.unwrap();
        place
            .create(&place.prompt_release("deleted"))
            .await
            .unwrap();
        let stop = CancellationToken::new();
        caches.start(&faults.client().await, &stop);
        caches.wait_ready().await;
        let names = || {
            caches
                .prompt_releases
                .keys()
                .into_iter()
                .map(|k| k.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(), ["deleted", "kept"]);

        faults.cut_watches();
        place
            .typed::<PromptRelease>()
            .delete("deleted", &Default::default())
            .await
            .unwrap();
        place.create(&place.prompt_release("made")).await.unwrap();
        eventually("the gap is noticed", || async {
            (!caches.problems().is_empty()).then_some(())
        })
        .await;
        assert_eq!(
            names(),
            ["deleted", "kept"],
            "what was known stays until there is a complete list"
        );
        assert!(caches.ready(), "a gap doesn't make caches unready");
        heard.lock().unwrap().clear();
        faults.mend();
        eventually("the caches have caught up", || async {
            (names() == ["kept", "made"]).then_some(())
        })
        .await;
        eventually("the delete is told", || async {
            let heard = heard.lock().unwrap();
            (heard.contains(&("deleted".to_owned(), true))
                && heard.contains(&("made".to_owned(), false)))
            .then_some(())
        })
        .await;
        eventually("the problem is gone", || async {
            caches.problems().is_empty().then_some(())
        })
        .await;
        stop.cancel();
    });
}

#[test]
fn a_watch_that_is_too_old_torn_or_silent_is_begun_anew_within_a_minute() {
    on_cluster(|place| async move {
        let faults = Faults::none();
        let caches = Caches::new(std::slice::from_ref(&place.namespace));
        let stop = CancellationToken::new();
        caches.start(&faults.client().await, &stop);
        caches.wait_ready().await;
        for (how, name) in [
            (Break::Gone, "gone"),
            (Break::Torn, "torn"),
            (Break::Silent, "silent"),
        ] {
            let names = || {
                let keys = caches.prompt_releases.keys();
                keys.into_iter().map(|k| k.name).collect::<Vec<_>>()
            };
            let known = format!("before-{name}");
            place.create(&place.prompt_release(&known)).await.unwrap();
            eventually("the watch works", || async {
                (names() == [known.clone()]).then_some(())
            })
            .await;
            faults.break_watches(how);
            place
                .typed::<PromptRelease>()
                .delete(&known, &Default::default())
                .await
                .unwrap();
            place.create(&place.prompt_release(name)).await.unwrap();
            let what = format!("what happened is noticed ({name})");
            let noticed = eventually(&what, || async { (names() == [name]).then_some(()) });
            let minute = std::time::Duration::from_secs(60);
            let noticed = tokio::time::timeout(minute, noticed).await;
            noticed.expect("what happened is noticed within a minute");
            place
                .typed::<PromptRelease>()
                .delete(name, &Default::default())
                .await
                .unwrap();
        }
        stop.cancel();
    });
}

#[test]
fn of_children_only_those_with_our_label_are_watched() {
    on_cluster(|place| async move {
        let caches = Caches::new(std::slice::from_ref(&place.namespace));
        let map = |name: &str, ours: bool| {
            let mut map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": place.namespace, "labels": {}}});
            if ours {
                map["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "perennial".into();
            }
            map
        };
        place.create(&map("ours", true)).await.unwrap();
        place.create(&map("theirs", false)).await.unwrap();
        let stop = CancellationToken::new();
        caches.start(&place.client, &stop);
        caches.wait_ready().await;
        assert_eq!(
            caches.config_maps.keys(),
            [Key::new(&place.namespace, "ours")]
        );
        assert!(caches.config_maps.seen(&place.namespace) > 0);
        stop.cancel();
    });
}
