//! Any text as a manifest: read, admitted, planned.

use orlop_agent::kit;

/// Every text is either planned or refused with a reason.
pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        kit::manifest(text);
    }
}

/// The samples, a manifest with everything, and texts that take readers in.
pub fn corpus() -> crate::Corpus {
    let mut corpus: crate::Corpus = SAMPLES.map(|(name, text)| (name.to_owned(), text.into())).into();
    let head = "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {name: a}\nspec:\n";
    for (name, spec) in [
        ("empty", ""),
        (
            "numbers",
            "  domain: {memory: {guest: 99999999999999Ei}, cpu: {cores: 4294967295, sockets: 4294967295}}\n",
        ),
        ("aliases", "  a: &a [x, x]\n  b: &b [*a, *a]\n  c: [*b, *b]\n"),
        ("depth", "  domain: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{\n"),
        ("tags", "  !!binary domain: !!float 1e999\n"),
    ] {
        corpus.push((name.to_owned(), format!("{head}{spec}").into_bytes()));
    }
    corpus.push(("json".to_owned(), br#"{"apiVersion":"v1","kind":"Secret","data":{"a":"!"}}"#.to_vec()));
    corpus
}

/// The samples that the project ships, and one that uses what they do not.
pub(crate) const SAMPLES: [(&str, &str); 5] = [
    ("debian", include_str!("../../../deploy/samples/debian.yaml")),
    ("bios", include_str!("../../../deploy/samples/bios.yaml")),
    ("uefi", include_str!("../../../deploy/samples/uefi.yaml")),
    ("container-disk", include_str!("../../../deploy/samples/container-disk.yaml")),
    ("everything", include_str!("everything.yaml")),
];
