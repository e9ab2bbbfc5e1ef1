//! What clients see of the definitions.

use kube::api::PostParams;
use kube::core::DynamicObject;
use serde_json::json;

use crate::site::{Kind, Site, VM, VMI, instance, kubectl, machine};

#[tokio::test]
async fn admit_kubectl_explains_fields_and_knows_short_names() {
    let site = Site::new("admit-served").await;
    let text = kubectl(&["explain", "vmi.spec.domain.memory.guest"]);
    assert!(text.contains("guest"), "{text}");
    let undescribed = text.contains("<no description>") || text.contains("<empty>");
    assert!(!undescribed, "{text}");
    site.create(VM, &machine("a")).await.expect("it may be");
    site.create(VMI, &instance("b")).await.expect("it may be");
    let machines = kubectl(&["--namespace", "admit-served", "get", "vm"]);
    let columns: Vec<&str> = machines.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(columns, ["NAME", "AGE", "STATUS", "READY"]);
    let instances = kubectl(&["--namespace", "admit-served", "get", "vmis"]);
    let columns: Vec<&str> = instances.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(columns, ["NAME", "AGE", "PHASE", "IP", "NODENAME", "READY"]);
    assert!(instances.contains("Pending"), "{instances}");
    assert!(kubectl(&["--namespace", "admit-served", "get", "all"]).contains("virtualmachine.kubevirt.io/a"));
}

#[tokio::test]
async fn admit_the_old_version_is_served_as_well() {
    let site = Site::new("admit-old").await;
    let old = Kind("kubevirt.io/v1alpha3", "VirtualMachineInstance", "virtualmachineinstances");
    let stored = site.create(old, &instance("a")).await.expect("it may be");
    assert_eq!(stored["status"]["phase"], "Pending", "the webhooks are asked for either version");
    let new = site.api(VMI).get("a").await.expect("it is the same object");
    assert_eq!(new.metadata.uid.as_deref(), stored["metadata"]["uid"].as_str());
}

#[tokio::test]
async fn admit_an_instance_has_no_status_subresource_and_a_machine_has_one() {
    let site = Site::new("admit-subresource").await;
    let instance = site.create(VMI, &instance("a")).await.expect("it may be");
    let machine = site.create(VM, &machine("a")).await.expect("it may be");
    let written = |kind: Kind, object: serde_json::Value| {
        let api = site.api(kind);
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        async move { api.replace_status("a", &PostParams::default(), &object).await }
    };
    assert!(written(VMI, instance).await.is_err());
    written(VM, machine).await.expect("it has one");
}

#[tokio::test]
async fn admit_a_replica_set_can_be_scaled() {
    let site = Site::new("admit-scale").await;
    let set = Kind("kubevirt.io/v1", "VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets");
    let labels = json!({ "set": "a" });
    let object = json!({
        "metadata": { "name": "a" },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": instance("a")["spec"] },
        },
    });
    site.create(set, &object).await.expect("it may be");
    kubectl(&["--namespace", "admit-scale", "scale", "vmirs", "a", "--replicas=3"]);
    let scaled = site.api(set).get("a").await.expect("it is there");
    assert_eq!(scaled.data["spec"]["replicas"], 3);
}
