//! A look at data: whether it is what it was, mostly without reading it.
//!
//! | where | what is compared |
//! | --- | --- |
//! | `pvc://` | up to 256 MiB all bytes; beyond that path, size and time of each file |
//! | `s3://`, `gs://`, `az://` | key, size and ETag of each object |
//! | `http(s)://` | ETag, Last-Modified and length of the answer to `HEAD`; without the first two, all bytes |

use std::{path::Path, time::UNIX_EPOCH};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use reqwest::{Method, Response};
use sha2::{Digest as _, Sha256};

use super::{
    Error, Result, digest,
    store::{self, Environment, clouds},
    uri::Uri,
};

/// So many bytes of a claim are read at most.
const READ: u64 = 256 * 1024 * 1024;

/// What was seen of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Another one says that the data is another: 32 hexadecimal digits.
    pub listing: String,
    /// Files or objects.
    pub files: usize,
}

/// Looks at what a URI names; `mount` is where the claim of a `pvc://` is, as [`Uri::mounted`] has it.
///
/// # Errors
/// If it isn't there, is empty, may not be read, or doesn't answer after several tries.
pub async fn look(uri: &Uri, environment: &Environment, mount: &Path) -> Result<Seen> {
    let lines = match uri {
        Uri::Pvc { .. } | Uri::File(_) => {
            let path = uri.mounted(mount).unwrap_or_default();
            let what = uri.to_string();
            tokio::task::spawn_blocking(move || mounted(&path, &what))
                .await
                .map_err(|e| Error::Unavailable(format!("looking at {uri} failed: {e}")))??
        }
        Uri::Bucket { cloud, bucket, key } => {
            let store = clouds::open(*cloud, bucket, environment)?;
            objects(uri, store.as_ref(), key).await?
        }
        Uri::Http(url) => vec![answered(url, environment).await?],
    };
    if lines.is_empty() {
        return Err(Error::NotFound(format!("{uri} holds no file")));
    }
    Ok(seen(lines))
}

/// In whatever order they came.
fn seen(mut lines: Vec<String>) -> Seen {
    lines.sort_unstable();
    let mut hash = Sha256::new();
    for line in &lines {
        hash.update(line);
        hash.update("\n");
    }
    let mut listing = hex::encode(hash.finalize());
    listing.truncate(32);
    Seen {
        listing,
        files: lines.len(),
    }
}

fn mounted(path: &Path, uri: &str) -> Result<Vec<String>> {
    if !path.exists() {
        return Err(Error::NotFound(format!(
            "{uri} isn't there: the claim is mounted, but has no such file or directory"
        )));
    }
    let mut files = Vec::new();
    for (relative, path) in digest::list(path)? {
        let about = std::fs::metadata(&path).map_err(|e| Error::file("looking at", &path, &e))?;
        files.push((relative, path, about));
    }
    if files.iter().map(|(_, _, about)| about.len()).sum::<u64>() <= READ {
        let content = digest::of_path(path, |_| false)?;
        let lines = content.files.into_iter();
        return Ok(lines.map(|f| format!("{} {}", f.path, f.digest)).collect());
    }
    let lines = files.into_iter().map(|(relative, _, about)| {
        let time = about.modified().ok();
        let time = time.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let time = time.map_or(0, |t| t.as_nanos());
        format!("{relative} {} {time}", about.len())
    });
    Ok(lines.collect())
}

async fn objects(uri: &Uri, store: &dyn ObjectStore, path: &str) -> Result<Vec<String>> {
    let at = store::key(uri, path)?;
    if !path.is_empty() {
        match store.head(&at).await {
            Ok(object) => return Ok(vec![line(&object)]),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(clouds::error(uri, &format!("looking at {uri}"), &e)),
        }
    }
    store
        .list(Some(&at))
        .map_ok(|object| line(&object))
        .try_collect()
        .await
        .map_err(|e| clouds::error(uri, &format!("listing {uri}"), &e))
}

fn line(object: &ObjectMeta) -> String {
    let tag = object.e_tag.clone();
    let tag = tag.unwrap_or_else(|| object.last_modified.to_string());
    format!("{} {} {tag}", object.location, object.size)
}

async fn answered(url: &url::Url, environment: &Environment) -> Result<String> {
    let client = store::http_client()?;
    let mut last = Error::Unavailable(format!("looking at {url} failed"));
    for wait in store::waits() {
        tokio::time::sleep(wait).await;
        match asked(&client, url, environment).await {
            Err(e @ Error::Unavailable(_)) => last = e,
            done => return done,
        }
    }
    Err(last)
}

async fn asked(
    client: &reqwest::Client,
    url: &url::Url,
    environment: &Environment,
) -> Result<String> {
    let ask = async |method: Method| {
        let request = client.request(method, url.clone());
        let answer = store::authorized(request, environment).send().await;
        answer.map_err(|e| {
            Error::Unavailable(format!("looking at {url} failed: {}", store::chain(&e)))
        })
    };
    let head = ask(Method::HEAD).await?;
    match head.status().as_u16() {
        200 => {
            if let Some(line) = unread(&head) {
                return Ok(line);
            }
        }
        // A server that is down for a moment must not be taken for one that doesn't know HEAD: its file would look changed.
        501 => {}
        408 | 429 | 500..=599 => return Err(store::http_error(url, head.status())),
        _ => {}
    }
    // Not every server knows HEAD, or says what tells one content from another.
    let answer = ask(Method::GET).await?;
    if answer.status().as_u16() != 200 {
        return Err(store::http_error(url, answer.status()));
    }
    let mut hash = Sha256::new();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream
        .try_next()
        .await
        .map_err(|e| Error::Unavailable(format!("reading {url} broke off: {}", store::chain(&e))))?
    {
        hash.update(&chunk);
    }
    Ok(format!("bytes {}", hex::encode(hash.finalize())))
}

/// What tells one content from another by the head alone.
fn unread(head: &Response) -> Option<String> {
    let said = |name: &str| {
        let value = head.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let (tag, time) = (said("etag"), said("last-modified"));
    if tag.is_none() && time.is_none() {
        return None;
    }
    Some(format!(
        "head {tag:?} {time:?} {:?}",
        said("content-length")
    ))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        sync::{Arc, Mutex},
    };

    use super::*;

    async fn listing(uri: &str) -> String {
        let uri = uri.parse().unwrap();
        let seen = look(&uri, &Environment::default(), Path::new("/")).await;
        seen.unwrap().listing
    }

    #[tokio::test]
    async fn a_tree_is_another_when_a_byte_or_a_name_is_and_not_when_it_was_touched() {
        let root = tempfile::tempdir().unwrap();
        let uri = root.path().to_str().unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        write("a", "one");
        write("b", "two");
        let mut before = listing(uri).await;
        assert_eq!(before.len(), 32);
        write("a", "one");
        assert_eq!(listing(uri).await, before, "written again");
        let rename = || std::fs::rename(root.path().join("b"), root.path().join("c")).unwrap();
        let changes: [(&str, &dyn Fn()); 4] = [
            ("one byte", &|| write("a", "onE")),
            ("a name", &rename),
            ("one more", &|| write("d", "")),
            ("one less", &|| {
                std::fs::remove_file(root.path().join("a")).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            let after = listing(uri).await;
            assert_ne!(after, before, "{what}");
            before = after;
        }
    }

    #[tokio::test]
    async fn what_is_not_there_or_empty_is_no_listing() {
        let root = tempfile::tempdir().unwrap();
        for path in [root.path().to_owned(), root.path().join("no")] {
            let uri = Uri::File(path);
            let error = look(&uri, &Environment::default(), Path::new("/")).await;
            assert!(matches!(error, Err(Error::NotFound(_))), "{error:?}");
        }
    }

    /// Answers every request with what is set at the time, and counts bodies.
    fn server(headers: &'static str) -> (String, Arc<Mutex<(String, usize)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/data.csv", listener.local_addr().unwrap());
        let content = Arc::new(Mutex::new(("one".to_owned(), 0)));
        let shared = content.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|l| l.is_ok_and(|l| !l.is_empty())) {}
                let mut content = shared.lock().unwrap();
                let body = content.0.clone();
                let headers = headers.replace("TAG", &body);
                let length = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n").unwrap();
                if first.starts_with("GET") {
                    content.1 += 1;
                    write!(stream, "{body}").unwrap();
                }
            }
        });
        (address, content)
    }

    #[tokio::test]
    async fn a_file_of_a_web_server_is_read_only_where_its_head_says_nothing() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (headers, reads) in [("etag: \"TAG\"\r\n", 0), ("", 3)] {
            let (address, content) = server(headers);
            let before = listing(&address).await;
            assert_eq!(listing(&address).await, before);
            content.lock().unwrap().0 = "two".to_owned();
            assert_ne!(listing(&address).await, before);
            assert_eq!(content.lock().unwrap().1, reads, "{headers}");
        }
    }
}
