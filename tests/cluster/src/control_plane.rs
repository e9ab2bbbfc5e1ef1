//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler and the cluster's DNS, on this machine.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use orlop_nested::cache::step;

use crate::addresses::{self, DNS_SERVICE, DOMAIN, PODS, SERVER, SERVER_PORT, SERVICES};
use crate::network::Namespace;
use crate::{ClusterError, pki};

/// How long the API server may take to its first answer; 3 s are usual.
const PATIENCE: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(50);

/// A link to the programs in the cluster's directory: a running cluster keeps those that it was started with.
pub(crate) const PROGRAMS: &str = "programs";

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";

/// How many requests a client may have at once: enough for a thousand machines.
const QPS: &str = "--kube-api-qps=500";
const BURST: &str = "--kube-api-burst=1000";

/// The Service of the cluster's DNS, which runs on the machine and not in a pod.
const DNS_OBJECTS: &str = include_str!("../manifests/dns.yaml");

/// The control plane's files and programs.
pub(crate) struct ControlPlane<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) directory: &'a Path,
}

impl ControlPlane<'_> {
    /// Makes keys and starts everything; returns when the API server answers.
    pub(crate) fn start(&self) -> Result<(), ClusterError> {
        for directory in [self.pki(), self.logs()] {
            fs::create_dir_all(&directory).map_err(ClusterError::files(&directory))?;
        }
        pki::make(&self.pki())?;
        step("start etcd and kube-apiserver", || {
            self.daemon("etcd", "kube", &self.etcd())?;
            let mut server = self.daemon("kube-apiserver", "kube", &self.apiserver())?;
            self.wait_until_ready(&mut server)
        })?;
        let mut manager = self.client("controller-manager");
        manager.extend(self.controller_manager());
        self.daemon("kube-controller-manager", "kube", &manager)?;
        let mut scheduler = self.client("scheduler");
        scheduler.extend([QPS.to_owned(), BURST.to_owned()]);
        self.daemon("kube-scheduler", "kube", &scheduler)?;
        self.start_dns()
    }

    /// A program of the cluster.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(PROGRAMS).join(name)
    }

    fn pki(&self) -> PathBuf {
        self.directory.join("pki")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Starts a program that outlives this process, its output in a log.
    fn daemon(&self, name: &str, program: &str, arguments: &[String]) -> Result<Child, ClusterError> {
        let log = self.logs().join(format!("{name}.log"));
        let output = File::create(&log).map_err(ClusterError::files(&log))?;
        let errors = output.try_clone().map_err(ClusterError::files(&log))?;
        let mut command = self.namespace.command(self.program(program));
        if program == "kube" {
            command.arg(name);
        }
        command
            .args(arguments)
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|source| ClusterError::Start { program: name.to_owned(), source })
    }

    fn wait_until_ready(&self, server: &mut Child) -> Result<(), ClusterError> {
        let began = Instant::now();
        loop {
            let mut command = self.namespace.command(self.program("kube"));
            command.arg("kubectl").arg("--kubeconfig").arg(self.kubeconfig("admin"));
            let asked = command.args(["get", "--raw", "/readyz"]).output();
            let asked = asked.map_err(|source| ClusterError::Start { program: "kubectl".into(), source })?;
            if asked.status.success() {
                return Ok(());
            }
            let not_ready = |why: String| ClusterError::NotReady {
                what: "kube-apiserver".into(),
                why,
                log: self.logs().join("kube-apiserver.log"),
            };
            if let Ok(Some(status)) = server.try_wait() {
                return Err(not_ready(format!("it ended with {status}")));
            }
            if began.elapsed() > PATIENCE {
                return Err(not_ready(String::from_utf8_lossy(&asked.stderr).trim().to_owned()));
            }
            std::thread::sleep(RETRY);
        }
    }

    pub(crate) fn kubeconfig(&self, name: &str) -> PathBuf {
        self.pki().join(format!("{name}.kubeconfig"))
    }

    fn etcd(&self) -> Vec<String> {
        let data = self.directory.join("etcd");
        vec![
            "--name=orlop".into(),
            format!("--data-dir={}", data.display()),
            // Nothing of it is to survive this machine.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            format!("--listen-peer-urls={ETCD_PEER}"),
            format!("--initial-advertise-peer-urls={ETCD_PEER}"),
            format!("--initial-cluster=orlop={ETCD_PEER}"),
        ]
    }

    fn apiserver(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.pki().join(name).display());
        vec![
            format!("--etcd-servers={ETCD}"),
            "--bind-address=0.0.0.0".into(),
            format!("--secure-port={SERVER_PORT}"),
            format!("--advertise-address={SERVER}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            file("client-ca-file", "ca.crt"),
            file("tls-cert-file", "apiserver.crt"),
            file("tls-private-key-file", "apiserver.key"),
            format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            file("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
            file("kubelet-client-key", "apiserver-kubelet-client.key"),
            file("kubelet-certificate-authority", "ca.crt"),
            "--kubelet-preferred-address-types=InternalIP".into(),
            file("requestheader-client-ca-file", "front-proxy-ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            file("proxy-client-cert-file", "front-proxy-client.crt"),
            file("proxy-client-key-file", "front-proxy-client.key"),
            // This machine routes to pods and not to Services.
            "--enable-aggregator-routing=true".into(),
        ]
    }

    fn controller_manager(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.pki().join(name).display());
        vec![
            "--use-service-account-credentials=true".into(),
            file("service-account-private-key-file", "sa.key"),
            file("root-ca-file", "ca.crt"),
            file("cluster-signing-cert-file", "ca.crt"),
            file("cluster-signing-key-file", "ca.key"),
            format!("--cluster-cidr={PODS}"),
            "--allocate-node-cidrs=false".into(),
            // A dead node is noticed in seconds: tests kill nodes.
            "--node-monitor-period=1s".into(),
            "--node-monitor-grace-period=10s".into(),
            QPS.into(),
            BURST.into(),
        ]
    }

    /// What every client of the API server is told.
    fn client(&self, name: &str) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig(name).display()),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
        ]
    }

    fn start_dns(&self) -> Result<(), ClusterError> {
        let file = self.directory.join("Corefile");
        let kubeconfig = self.kubeconfig("admin");
        let text = format!(
            ".:53 {{\n  bind {SERVER}\n  errors\n  ready {SERVER}:8181\n  cache 5\n  kubernetes {DOMAIN} in-addr.arpa {{\n    \
             kubeconfig {}\n    pods insecure\n  }}\n}}\n",
            kubeconfig.display()
        );
        fs::write(&file, text).map_err(ClusterError::files(&file))?;
        self.daemon("dns", "dns", &["-conf".into(), file.display().to_string()])?;
        let objects =
            DNS_OBJECTS.replace("$DNS", DNS_SERVICE).replace("$SERVER", &addresses::SERVER.to_string());
        let file = self.directory.join("dns.yaml");
        fs::write(&file, objects).map_err(ClusterError::files(&file))?;
        let mut apply = self.namespace.command(self.program("kube"));
        apply
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["apply", "--server-side", "-f"])
            .arg(file);
        orlop_nested::run("make the Service of the cluster's DNS", &mut apply)?;
        Ok(())
    }
}
