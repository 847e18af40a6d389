//! Certificates: files that the cluster mounts and renews. What callers are shown, and what servers are believed by.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// How old what was read may be.
const FRESH: Duration = Duration::from_secs(1);

/// Reads `<directory>/<secret>/tls.crt`, `tls.key` and `ca.crt`.
pub struct Certificates {
    directory: PathBuf,
    provider: Arc<CryptoProvider>,
    servers: Mutex<Known<ServerConfig>>,
    clients: Mutex<Known<ClientConfig>>,
}

/// By Secret, and for clients whether they speak HTTP/2: what was read, when, and what became of it.
type Known<T> = HashMap<(String, bool), (Instant, Vec<Vec<u8>>, Arc<T>)>;

/// TLS to a server.
#[derive(Clone)]
pub struct Trust {
    /// Whom is believed.
    pub config: Arc<ClientConfig>,
    /// Whose certificate it must be.
    pub name: ServerName<'static>,
}

impl Certificates {
    /// Files below this directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            provider: Arc::new(ring::default_provider()),
            servers: Mutex::default(),
            clients: Mutex::default(),
        }
    }

    /// What callers are shown: `tls.crt` and `tls.key` of this Secret. A renewed one is used within a second.
    ///
    /// # Errors
    /// A sentence that names the Secret and says what to do.
    pub fn server(&self, secret: &str) -> Result<Arc<ServerConfig>, String> {
        let make = |files: &[Vec<u8>]| {
            let wrong = |why: String| format!("Secret {secret} can't be used for TLS: {why}");
            let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&files[0])
                .collect::<Result<_, _>>()
                .map_err(|e| wrong(format!("tls.crt is no certificate in PEM: {e}")))?;
            let key = PrivateKeyDer::from_pem_slice(&files[1])
                .map_err(|e| wrong(format!("tls.key is no private key in PEM: {e}")))?;
            let mut config = ServerConfig::builder_with_provider(self.provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|e| wrong(e.to_string()))?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(|e| wrong(e.to_string()))?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Ok(config)
        };
        self.find(&self.servers, secret, false, &["tls.crt", "tls.key"], make)
    }

    /// Whom is believed: who has a certificate by an authority of `ca.crt` in this Secret.
    ///
    /// # Errors
    /// A sentence that names the Secret and says what to do.
    pub fn client(&self, secret: &str, http2: bool) -> Result<Arc<ClientConfig>, String> {
        let make = |files: &[Vec<u8>]| {
            let wrong = |why: String| format!("Secret {secret} can't be used for TLS: {why}");
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&files[0]) {
                certificate
                    .map_err(|e| e.to_string())
                    .and_then(|c| roots.add(c).map_err(|e| e.to_string()))
                    .map_err(|e| wrong(format!("ca.crt is no certificate in PEM: {e}")))?;
            }
            if roots.is_empty() {
                return Err(wrong("there is no certificate in ca.crt".into()));
            }
            let mut config = ClientConfig::builder_with_provider(self.provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|e| wrong(e.to_string()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(config)
        };
        self.find(&self.clients, secret, http2, &["ca.crt"], make)
    }

    fn find<T>(
        &self,
        known: &Mutex<Known<T>>,
        secret: &str,
        http2: bool,
        names: &[&str],
        make: impl Fn(&[Vec<u8>]) -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        let id = (secret.to_owned(), http2);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, _, config)) = known.get(&id)
            && at.elapsed() < FRESH
        {
            return Ok(config.clone());
        }
        let files = names
            .iter()
            .map(|name| self.read(secret, name))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some((at, before, config)) = known.get_mut(&id)
            && *before == files
        {
            *at = Instant::now();
            return Ok(config.clone());
        }
        let config = Arc::new(make(&files)?);
        known.insert(id, (Instant::now(), files, config.clone()));
        Ok(config)
    }

    fn read(&self, secret: &str, name: &str) -> Result<Vec<u8>, String> {
        if secret.contains('/') || secret == ".." {
            return Err(format!("`{secret}` is no name of a Secret"));
        }
        std::fs::read(self.directory.join(secret).join(name)).map_err(|_| {
            format!(
                "key `{name}` of Secret {secret} isn't mounted here: create it in this namespace, and it will be within a minute"
            )
        })
    }
}
