use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::join_all;

use super::*;
use crate::{
    api::run::{FetchRun, Summary},
    data::store::Environment,
};

/// A web server that answers each path with itself ten times, slowly, and counts.
async fn source() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let app = axum::Router::new().fallback(move |uri: http::Uri| {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            uri.path().repeat(10)
        }
    });
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, count)
}

/// What one pod does: how it ended, and what its server gets.
async fn fetch(directory: &Path, bytes: u64, host: SocketAddr, name: &str) -> (Summary, String) {
    let content = format!("/{name}").repeat(10);
    let own = tempfile::tempdir().unwrap();
    let spec = FetchRun {
        uri: format!("http://{host}/{name}"),
        digest: Some(digest::of_bytes(content.as_bytes())),
        target: own.path().to_string_lossy().into(),
        cache: Some(CacheRun {
            directory: directory.to_string_lossy().into(),
            bytes,
        }),
    };
    let summary = super::fetch::fetch(&spec, &Environment::default(), Path::new("/nowhere"))
        .await
        .unwrap();
    assert_eq!(summary.digest, spec.digest);
    let files: Vec<_> = fs::read_dir(own.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let got = fs::read_to_string(own.path().join(name)).unwrap();
    assert_eq!(got, content);
    (summary, got)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|e| e.unwrap());
    let keys = all.filter(|e| is_key(e.file_name().to_str().unwrap()));
    keys.map(|e| e.path()).collect()
}

#[tokio::test]
async fn pods_that_start_together_fetch_once() {
    let cache = tempfile::tempdir().unwrap();
    let (host, count) = source().await;
    let pods = (0..8).map(|_| fetch(cache.path(), 1 << 20, host, "model.bin"));
    let ends = join_all(pods).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let how = |how: &str| {
        let so = |end: &&(Summary, String)| end.0.message.ends_with(how);
        ends.iter().filter(so).count()
    };
    assert_eq!(
        (how("fetched for the cache"), how("from the cache")),
        (1, 7),
        "{ends:?}"
    );
}

#[tokio::test]
async fn what_was_changed_in_the_cache_is_noticed_and_fetched_anew() {
    let cache = tempfile::tempdir().unwrap();
    let (host, count) = source().await;
    let get = || fetch(cache.path(), 1 << 20, host, "model.bin");
    get().await;
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 7] = [
        ("a byte", |e| {
            fs::write(e.join("content/model.bin"), "/model.biN".repeat(10)).unwrap();
        }),
        ("cut off", |e| {
            fs::write(e.join("content/model.bin"), "/model").unwrap();
        }),
        ("a file too many", |e| {
            fs::write(e.join("content/other"), "x").unwrap();
        }),
        ("a file too few", |e| {
            fs::remove_file(e.join("content/model.bin")).unwrap();
        }),
        ("no entry", |e| {
            fs::remove_file(e.join(ENTRY)).unwrap();
        }),
        ("a spoilt entry", |e| {
            fs::write(e.join(ENTRY), "{").unwrap();
        }),
        ("another's place", |e| {
            let text = fs::read_to_string(e.join(ENTRY)).unwrap();
            let text = text.replace("model.bin", "../../model.bin");
            fs::write(e.join(ENTRY), text).unwrap();
        }),
    ];
    for (i, (name, damage)) in damages.iter().enumerate() {
        damage(&entries(cache.path())[0]);
        let (summary, _) = get().await;
        assert!(
            summary.message.contains("fetched anew for the cache"),
            "{name}: {summary:?}"
        );
        let (summary, _) = get().await;
        assert!(
            summary.message.ends_with("from the cache"),
            "{name}: {summary:?}"
        );
        assert_eq!(count.load(Ordering::SeqCst), i + 2, "{name}");
    }
}

#[tokio::test]
async fn what_no_digest_counts_is_verified_too() {
    let (cache, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join("sub")).unwrap();
    for (path, text) in [("sub/a", "a"), ("b", "b"), (output::MANIFEST, "{}")] {
        fs::write(from.path().join(path), text).unwrap();
    }
    let run = CacheRun {
        directory: cache.path().to_string_lossy().into(),
        bytes: 100,
    };
    let artifact = digest::of_path(from.path(), |file| file == output::MANIFEST).unwrap();
    let place = || Place::new(&run, "s3://models/m/v1", &artifact.digest);
    let all = digest::of_path(from.path(), |_| false).unwrap();
    let target = tempfile::tempdir().unwrap();
    let Found::Vacant(vacancy, None) = place().take(target.path()).unwrap() else {
        panic!("it is empty");
    };
    vacancy.fill(from.path(), &all, None).unwrap();
    let Found::Copied(content) = place().take(target.path()).unwrap() else {
        panic!("it was filled");
    };
    assert_eq!(content, artifact);
    assert_eq!(digest::of_path(target.path(), |_| false).unwrap(), all);
    let manifest = entries(cache.path())[0].join("content/manifest.json");
    fs::write(manifest, "[]").unwrap();
    let found = place().take(target.path()).unwrap();
    assert!(matches!(found, Found::Vacant(_, Some(_))));
}

#[tokio::test]
async fn the_cache_stays_within_its_size_and_what_was_used_longest_ago_goes_first() {
    let cache = tempfile::tempdir().unwrap();
    let (host, _) = source().await;
    // Three of 20 bytes.
    let get = async |name: &str| {
        let (summary, _) = fetch(cache.path(), 65, host, name).await;
        summary.message.ends_with("from the cache")
    };
    let orphan = cache.path().join(format!("x{PARTIAL}"));
    fs::create_dir(&orphan).unwrap();
    for name in ["a", "b", "c"] {
        assert!(!get(name).await);
    }
    assert!(!orphan.exists(), "of a pod that was killed");
    assert!(get("a").await);
    assert!(!get("d").await);
    assert_eq!(entries(cache.path()).len(), 3);
    for (name, kept) in [("a", true), ("c", true), ("d", true), ("b", false)] {
        assert_eq!(get(name).await, kept, "{name}");
    }
    // What is being copied stays, whoever else may have to wait.
    let run = CacheRun {
        directory: cache.path().to_string_lossy().into(),
        bytes: 65,
    };
    let any = Place::new(&run, "", "");
    let reading: Vec<File> = entries(cache.path())
        .iter()
        .map(|e| {
            let key = e.file_name().unwrap().to_str().unwrap();
            let lock = open(&any.lock_of(key)).unwrap();
            lock.lock_shared().unwrap();
            lock
        })
        .collect();
    let before = entries(cache.path());
    let error = any.make_room(60).unwrap_err().to_string();
    assert!(error.contains("60 bytes"), "{error}");
    assert_eq!(entries(cache.path()), before);
    drop(reading);
    any.make_room(60).unwrap();
    assert!(entries(cache.path()).is_empty());
    let (summary, _) = fetch(cache.path(), 19, host, "e").await;
    assert!(summary.message.contains("more than the 19"), "{summary:?}");
}

#[tokio::test]
async fn without_a_cache_that_can_be_used_each_pod_fetches() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let (host, count) = source().await;
    for (i, directory) in [file.as_path(), Path::new("/nowhere"), Path::new("/proc")]
        .into_iter()
        .enumerate()
    {
        let (summary, _) = fetch(directory, 1 << 20, host, "model.bin").await;
        let expected = "fetched, and not kept in the cache: ";
        assert!(summary.message.contains(expected), "{summary:?}");
        assert_eq!(count.load(Ordering::SeqCst), i + 1);
    }
}
