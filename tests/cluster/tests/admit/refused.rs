//! What may not be, and how that is said.

use serde_json::{Value, json};

use crate::site::{Kind, Site, USER, VM, VMI, causes, instance, machine};

/// Something that breaks one rule: what is changed in the smallest object, and the cause that is expected.
struct Broken {
    kind: Kind,
    pointer: &'static str,
    value: Value,
    reason: &'static str,
    field: &'static str,
    message: &'static str,
}

const fn broken(
    kind: Kind,
    pointer: &'static str,
    value: Value,
    (reason, field, message): (&'static str, &'static str, &'static str),
) -> Broken {
    Broken { kind, pointer, value, reason, field, message }
}

#[tokio::test]
async fn admit_a_refusal_is_a_status_with_kubevirts_causes() {
    let site = Site::new("admit-refused").await;
    let disk = json!([{ "name": "root", "disk": {} }]);
    for Broken { kind, pointer, value, reason, field, message } in [
        broken(VMI, "/spec/domain/memory", json!({}), ("FieldValueRequired", "", "no memory requested")),
        broken(
            VMI,
            "/spec/domain/devices/disks",
            disk,
            ("FieldValueInvalid", "spec.domain.devices.disks[0].name", "not found"),
        ),
        broken(
            VMI,
            "/spec/hostname",
            json!("A"),
            ("FieldValueInvalid", "spec.hostname", "does not conform to the kubernetes DNS_LABEL rules"),
        ),
        broken(
            VMI,
            "/spec/domain/devices/tpm",
            json!({}),
            ("FieldValueNotSupported", "spec.domain.devices.tpm", "there is no trusted platform module yet"),
        ),
        broken(
            VM,
            "/spec/runStrategy",
            json!("Sometimes"),
            ("FieldValueInvalid", "spec.runStrategy", "Invalid RunStrategy (Sometimes)"),
        ),
        broken(VM, "/spec/running", json!(true), ("FieldValueInvalid", "spec.running", "mutually exclusive")),
    ] {
        let mut object = if kind.1 == VM.1 { machine("bad") } else { instance("bad") };
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        object.pointer_mut(parent).expect("it is there")[name] = value;
        let status = site.create(kind, &object).await.expect_err(pointer);
        assert_eq!(status.code, 422, "{pointer}: {status:?}");
        let causes = causes(&status);
        let fits = |cause: &(String, String, String)| {
            cause.0 == reason && cause.1 == field && cause.2.contains(message)
        };
        assert!(causes.iter().any(fits), "{pointer}: {causes:?}");
        assert!(site.api(kind).get_opt("bad").await.expect("an answer").is_none());
    }
}

#[tokio::test]
async fn admit_the_spec_of_an_instance_is_not_for_users_to_change() {
    let site = Site::new("admit-immutable").await;
    let stored = site.create(VMI, &instance("a")).await.expect("it may be");
    let user = site.by(USER).await;
    let mut changed = stored.clone();
    changed["spec"]["domain"]["memory"]["guest"] = json!("128Mi");
    let status = user.replace(VMI, &changed).await.expect_err("its spec is fixed");
    assert!(status.message.contains("update of VMI object is restricted"), "{}", status.message);
    let mut labelled = stored;
    labelled["metadata"]["labels"] = json!({ "mine": "yes" });
    let stored = user.replace(VMI, &labelled).await.expect("labels are the user's");
    let mut reserved = stored;
    reserved["metadata"]["labels"]["kubevirt.io/nodeName"] = json!("elsewhere");
    let status = user.replace(VMI, &reserved).await.expect_err("that label is the platform's");
    assert!(status.message.contains("reserved kubevirt.io/ labels"), "{}", status.message);
}

#[tokio::test]
async fn admit_a_field_that_nobody_knows_is_named() {
    let site = Site::new("admit-unknown").await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut object = instance("a");
    object["apiVersion"] = json!(VMI.0);
    object["kind"] = json!(VMI.1);
    object["spec"]["domain"]["devices"]["dsks"] = json!([]);
    std::fs::write(file.path(), object.to_string()).expect("it is ours");
    let mut kubectl = orlop_cluster::Cluster::of_checkout().kubectl();
    let output = kubectl.args(["--namespace", &site.namespace, "create", "-f"]).arg(file.path()).output();
    let output = output.expect("kubectl starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("spec.domain.devices.dsks"), "{said}");
}
