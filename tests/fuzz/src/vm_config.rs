//! Any bytes as the configuration of a machine: read as the VMM's API reads it, and planned.

/// Every body is either planned or refused with a reason.
pub fn run(bytes: &[u8]) {
    orlop_vmm::kit::config(bytes);
}

/// What the samples lead to, and numbers that do not fit.
pub fn corpus() -> crate::Corpus {
    let samples = crate::manifest::SAMPLES.into_iter();
    let planned = samples.filter_map(|(name, text)| Some((name.to_owned(), orlop_agent::kit::config(text)?)));
    let mut corpus: crate::Corpus = planned.collect();
    assert!(corpus.len() > 3, "the samples are not planned");
    let small = br#"{"cpus":{"sockets":65535,"cores":65535,"threads":255},"memory":{"size_bytes":18446744073709551615},"boot":{"kernel":{"kernel":{"path":"/k"}}}}"#;
    corpus.push(("huge".to_owned(), small.to_vec()));
    corpus
}
