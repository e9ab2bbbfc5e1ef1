//! The virtual node as its users see it. Always virtual: what is tried here nobody wants on the machine itself.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use orlop_nested::{Job, JobError, Node, NodeOptions};

fn node() -> Node {
    let options = NodeOptions {
        cpus: 1,
        memory_mib: 768,
        images: false,
        always_virtual: true,
        ..NodeOptions::default()
    };
    Node::start(&options).unwrap()
}

#[test]
fn a_node_carries_jobs_out_and_has_real_kvm() {
    let node = node();

    let outcome = node.run(&Job::script("echo out; echo err >&2; exit 7")).unwrap();
    assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (7, &b"out\n"[..], &b"err\n"[..]));

    let outcome = node.run(&Job::script("kill -9 $$")).unwrap();
    assert_eq!(outcome.code, 128 + 9);

    let outcome =
        node.run(&Job::script("grep -o -m1 -w svm /proc/cpuinfo; test -c /dev/kvm").env("A", "b")).unwrap();
    assert_eq!((outcome.code, &*outcome.stdout), (0, &b"svm\n"[..]));

    let error = node.run(&Job::new(["no-such-program"])).unwrap_err();
    assert!(matches!(error, JobError::Refused { .. }), "{error}");

    let error = node.run(&Job::new(["sleep", "1000"]).deadline(Duration::from_millis(300))).unwrap_err();
    assert!(matches!(error, JobError::Late { .. }), "{error}");
    // The late job was killed: nothing of it is left soon after its connection is.
    let gone = "for i in $(seq 100); do pgrep -x sleep >/dev/null || exit 0; sleep 0.1; done; exit 1";
    assert_eq!(node.run(&Job::script(gone)).unwrap().code, 0);

    for n in 0..50u32 {
        let outcome =
            node.run(&Job::new(["echo", &n.to_string()]).deadline(Duration::from_secs(30))).unwrap();
        assert_eq!((outcome.code, outcome.stdout), (0, format!("{n}\n").into_bytes()));
    }

    std::fs::write(node.job_dir().join("from-outside"), "hello").unwrap();
    let outcome = node.run(&Job::script("cat /job/from-outside; echo hi > /job/from-inside")).unwrap();
    assert_eq!(outcome.stdout, b"hello");
    assert_eq!(std::fs::read(node.job_dir().join("from-inside")).unwrap(), b"hi\n");
}

#[test]
fn two_nodes_run_side_by_side_and_take_several_jobs_at_once() {
    let (one, other) = (node(), node());
    let jobs = Arc::new(Barrier::new(4));
    std::thread::scope(|scope| {
        for (node, name) in [(&one, "a"), (&one, "b"), (&other, "c"), (&other, "d")] {
            let jobs = Arc::clone(&jobs);
            scope.spawn(move || {
                jobs.wait();
                let script = format!("seq 1 200000; echo {name}");
                let outcome = node.run(&Job::script(&script)).unwrap();
                assert!(outcome.stdout.ends_with(format!("200000\n{name}\n").as_bytes()));
                assert_eq!(outcome.stdout.len(), 1_288_897);
            });
        }
    });
}

#[test]
fn a_panic_of_the_node_is_told_with_its_console() {
    let node = node();
    let error =
        node.run(&Job::script("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")).unwrap_err();
    assert!(error.is_the_nodes_fault());
    let JobError::Panicked(console) = &error else { panic!("{error}") };
    assert!(console.lines.iter().any(|line| line.contains("sysrq triggered crash")), "{error}");
    assert!(console.path.exists());
}
