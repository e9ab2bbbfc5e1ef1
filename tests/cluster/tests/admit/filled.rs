//! What is filled in, and what is left alone.

use kube::api::PostParams;
use serde_json::json;

use crate::site::{INSTANCETYPE, PLATFORM, PRESET, Site, USER, VM, VMI, instance, machine};

#[tokio::test]
async fn admit_an_instance_gets_kubevirts_defaults() {
    let site = Site::new("admit-defaults").await;
    let stored = site.create(VMI, &instance("a")).await.expect("it may be");
    let (spec, status) = (&stored["spec"], &stored["status"]);
    assert_eq!(spec["architecture"], "amd64");
    assert_eq!(spec["domain"]["machine"]["type"], "q35");
    assert_eq!(spec["domain"]["devices"]["interfaces"][0]["name"], "default");
    assert_eq!(spec["networks"], json!([{ "name": "default", "pod": {} }]));
    assert_eq!(status["phase"], "Pending");
    assert_eq!(stored["metadata"]["finalizers"], json!(["kubevirt.io/foregroundDeleteVirtualMachine"]));
}

#[tokio::test]
async fn admit_a_machine_gets_a_uuid_that_stays() {
    let site = Site::new("admit-uuid").await;
    let stored = site.create(VM, &machine("a")).await.expect("it may be");
    let firmware = stored["spec"]["template"]["spec"]["domain"]["firmware"].clone();
    let uuid = firmware["uuid"].as_str().expect("a uuid").to_owned();
    assert_eq!(uuid.len(), 36);
    assert_eq!(firmware["serial"], uuid.as_str());
    let other = site.create(VM, &machine("b")).await.expect("it may be");
    assert_ne!(other["spec"]["template"]["spec"]["domain"]["firmware"]["uuid"], uuid.as_str());
    let again = site.replace(VM, &stored).await.expect("it may be");
    assert_eq!(again["spec"]["template"]["spec"]["domain"]["firmware"]["uuid"], uuid.as_str());
}

#[tokio::test]
async fn admit_a_dry_run_leaves_nothing() {
    let site = Site::new("admit-dry").await;
    let dry = PostParams { dry_run: true, field_manager: None };
    let answer = site.create_with(VMI, &instance("a"), &dry).await.expect("it may be");
    assert_eq!(answer["status"]["phase"], "Pending", "a dry run shows what would be");
    assert!(site.api(VMI).get_opt("a").await.expect("an answer").is_none());
}

#[tokio::test]
async fn admit_a_preset_is_merged_into_what_it_selects() {
    let site = Site::new("admit-preset").await;
    let preset = json!({
        "metadata": { "name": "small" },
        "spec": {
            "selector": { "matchLabels": { "size": "small" } },
            "domain": { "devices": {}, "cpu": { "cores": 2 } },
        },
    });
    site.create(PRESET, &preset).await.expect("it may be");
    let mut chosen = instance("a");
    chosen["metadata"]["labels"] = json!({ "size": "small" });
    let stored = site.create(VMI, &chosen).await.expect("it may be");
    assert_eq!(stored["spec"]["domain"]["cpu"]["cores"], 2);
    assert_eq!(stored["metadata"]["annotations"]["virtualmachinepreset.kubevirt.io/small"], "kubevirt.io/v1");
    let other = site.create(VMI, &instance("b")).await.expect("it may be");
    assert_eq!(other["spec"]["domain"]["cpu"]["cores"], 1);
}

#[tokio::test]
async fn admit_the_status_of_an_instance_is_the_platforms() {
    let site = Site::new("admit-status").await;
    let mut forged = instance("a");
    forged["status"] = json!({ "phase": "Running", "nodeName": "elsewhere" });
    let user = site.by(USER).await;
    let stored = user.create(VMI, &forged).await.expect("it may be");
    assert_eq!(stored["status"]["phase"], "Pending");
    assert_eq!(stored["status"].get("nodeName"), None);
    let mut running = stored.clone();
    running["status"]["phase"] = json!("Running");
    let unchanged = user.replace(VMI, &running).await.expect("it is as if nothing was written");
    assert_eq!(unchanged["status"]["phase"], "Pending");
    running["metadata"]["resourceVersion"] = unchanged["metadata"]["resourceVersion"].clone();
    let changed = site.by(PLATFORM).await.replace(VMI, &running).await.expect("the platform may");
    assert_eq!(changed["status"]["phase"], "Running");
}

#[tokio::test]
async fn admit_an_instance_type_is_looked_up_and_must_not_be_contradicted() {
    let site = Site::new("admit-types").await;
    let mut vm = machine("a");
    vm["spec"]["instancetype"] = json!({ "name": "small", "kind": "VirtualMachineInstancetype" });
    vm["spec"]["template"]["spec"]["domain"] = json!({ "devices": {} });
    let status = site.create(VM, &vm).await.expect_err("there is none yet");
    assert!(
        status.message.contains("virtualmachineinstancetypes.instancetype.kubevirt.io \"small\" not found")
    );
    let small = json!({
        "metadata": { "name": "small" },
        "spec": { "cpu": { "guest": 1 }, "memory": { "guest": "128Mi" } },
    });
    site.create(INSTANCETYPE, &small).await.expect("it may be");
    site.create(VM, &vm).await.expect("it may be");
    vm["metadata"]["name"] = json!("b");
    vm["spec"]["template"]["spec"]["domain"]["memory"] = json!({ "guest": "1Gi" });
    let status = site.create(VM, &vm).await.expect_err("two say how much memory");
    assert!(status.message.contains("conflicts with selected instance type"), "{}", status.message);
}

#[tokio::test]
async fn admit_a_deleted_instance_goes_when_its_finalizer_does() {
    let site = Site::new("admit-finalizer").await;
    site.create(VMI, &instance("a")).await.expect("it may be");
    site.api(VMI).delete("a", &kube::api::DeleteParams::default()).await.expect("it may go");
    let held = site.api(VMI).get("a").await.expect("the finalizer holds it");
    assert!(held.metadata.deletion_timestamp.is_some());
    let free = json!({ "metadata": { "finalizers": null } });
    let how = kube::api::PatchParams::default();
    site.api(VMI)
        .patch("a", &how, &kube::api::Patch::Merge(free))
        .await
        .expect("finalizers may be taken away");
    assert!(site.api(VMI).get_opt("a").await.expect("an answer").is_none());
}
