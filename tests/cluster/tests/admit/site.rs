//! What all tests share: the definitions, `virt-api`, and a namespace for each test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::core::Status;
use kube::{Client, Config};
use orlop_cluster::Cluster;
use serde_json::{Value, json};

/// Where `virt-api` listens, in the cluster's network namespace, in which the tests run too.
pub const ADDRESS: &str = "127.0.0.1:8443";
const DEADLINE: Duration = Duration::from_secs(60);
/// The service account of a component of the platform.
pub const PLATFORM: &str = "system:serviceaccount:kubevirt:virt-controller";
/// Somebody who may write machines, and is nobody special.
pub const USER: &str = "jane";

/// A kind with its plural.
#[derive(Clone, Copy)]
pub struct Kind(pub &'static str, pub &'static str, pub &'static str);

pub const VM: Kind = Kind("kubevirt.io/v1", "VirtualMachine", "virtualmachines");
pub const VMI: Kind = Kind("kubevirt.io/v1", "VirtualMachineInstance", "virtualmachineinstances");
pub const PRESET: Kind =
    Kind("kubevirt.io/v1", "VirtualMachineInstancePreset", "virtualmachineinstancepresets");
pub const INSTANCETYPE: Kind =
    Kind("instancetype.kubevirt.io/v1beta1", "VirtualMachineInstancetype", "virtualmachineinstancetypes");

/// A namespace of one test.
pub struct Site {
    client: Client,
    pub namespace: String,
}

impl Site {
    /// The namespace `name`, empty.
    pub async fn new(name: &str) -> Self {
        ready();
        let client = Client::try_default().await.expect("KUBECONFIG says where the API server is");
        kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait=true"]);
        kubectl(&["create", "namespace", name]);
        Self { client, namespace: name.to_owned() }
    }

    /// The same as another user.
    pub async fn by(&self, user: &str) -> Self {
        let mut config = Config::infer().await.expect("KUBECONFIG says where the API server is");
        config.auth_info.impersonate = Some(user.to_owned());
        Self { client: Client::try_from(config).expect("a client"), namespace: self.namespace.clone() }
    }

    pub fn api(&self, Kind(version, kind, plural): Kind) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').expect("a group and a version");
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Creates an object, and hands back what was stored, or the API server's refusal.
    pub async fn create(&self, kind: Kind, object: &Value) -> Result<Value, Box<Status>> {
        self.create_with(kind, object, &PostParams::default()).await
    }

    pub async fn create_with(
        &self,
        kind: Kind,
        object: &Value,
        how: &PostParams,
    ) -> Result<Value, Box<Status>> {
        let mut object = object.clone();
        object["apiVersion"] = json!(kind.0);
        object["kind"] = json!(kind.1);
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        value(self.api(kind).create(how, &object).await)
    }

    /// Writes an object that was read before.
    pub async fn replace(&self, kind: Kind, object: &Value) -> Result<Value, Box<Status>> {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
        value(self.api(kind).replace(&name, &PostParams::default(), &object).await)
    }
}

fn value(answer: kube::Result<DynamicObject>) -> Result<Value, Box<Status>> {
    match answer {
        Ok(object) => Ok(serde_json::to_value(object).expect("plain data")),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("the API server does not answer: {error}"),
    }
}

/// The smallest instance.
pub fn instance(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "domain": { "devices": {}, "memory": { "guest": "64Mi" } } },
    })
}

/// The smallest machine.
pub fn machine(name: &str) -> Value {
    let spec = instance(name)["spec"].clone();
    json!({ "metadata": { "name": name }, "spec": { "runStrategy": "Halted", "template": { "spec": spec } } })
}

/// The causes of a refusal: reason, field, message.
pub fn causes(status: &Status) -> Vec<(String, String, String)> {
    let details = status.details.iter().flat_map(|details| &details.causes);
    details.map(|cause| (cause.reason.clone(), cause.field.clone(), cause.message.clone())).collect()
}

/// Runs kubectl, which is to succeed, and hands back what it printed.
pub fn kubectl(arguments: &[&str]) -> String {
    let output = Cluster::of_checkout().kubectl().args(arguments).output().expect("kubectl starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {}: {said}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("text")
}

/// Definitions and `virt-api`, once for all tests.
fn ready() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        assert!(Cluster::of_checkout().is_up(), "no cluster is up: cargo xtask cluster up --nodes 0");
        let crds = orlop_nested::host::checkout().join("deploy/crds");
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &crds.display().to_string()]);
        kubectl(&["wait", "--for=condition=Established", "-f", &crds.display().to_string()]);
        for (name, subject) in [("orlop-test-user", USER), ("orlop-test-platform", PLATFORM)] {
            let objects = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": { "name": name },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
                "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": subject }],
            });
            apply(&objects);
        }
        apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kubevirt" } }));
        start();
        eventually("virt-api registers itself", || {
            let listed = kubectl(&["get", "validatingwebhookconfigurations", "--output", "name"]);
            listed.contains("virt-api-validator") && std::net::TcpStream::connect(ADDRESS).is_ok()
        });
    });
}

pub fn apply(object: &Value) {
    use std::io::Write;
    let mut kubectl = Cluster::of_checkout().kubectl();
    kubectl.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]).stdin(Stdio::piped());
    let mut child = kubectl.stdout(Stdio::null()).spawn().expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(object.to_string().as_bytes()).expect("kubectl reads");
    drop(stdin);
    assert!(child.wait().expect("it ends").success(), "{object}");
}

/// Starts `virt-api`. It ends with the thread that starts it, and that with the process.
fn start() {
    let program = program();
    let (started, is_started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("virt-api");
        command.args(["--listen", ADDRESS]).arg("--url").arg(format!("https://{ADDRESS}"));
        let mut child = command.stdin(Stdio::null()).spawn().expect("virt-api starts");
        started.send(()).expect("somebody waits");
        let status = child.wait();
        panic!("virt-api ended: {status:?}");
    });
    is_started.recv().expect("it starts");
}

fn program() -> PathBuf {
    let path = orlop_nested::host::target_dir().join("debug/orlop-controller");
    assert!(path.exists(), "{} is not built: cargo build -p orlop-controller", path.display());
    path
}

pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}: not within {} s", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
