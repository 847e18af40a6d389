//! The CRDs in the tree are what the program writes.

use std::{fs, path::Path};

#[test]
fn the_files_are_the_output_of_the_program_and_small_enough() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for crd in perennial::api::crds() {
        let name = format!("{}.yaml", crd["spec"]["names"]["plural"].as_str().unwrap());
        let text = perennial::yaml::write(&crd);
        // Client-side apply keeps a copy in an annotation, which breaks at 262 kB.
        assert!(
            text.len() < 200_000 && crd.to_string().len() < 200_000,
            "{name} has {} bytes",
            text.len()
        );
        for dir in ["crds", "charts/perennial/files/crds"] {
            let file = fs::read_to_string(root.join(dir).join(&name)).unwrap_or_default();
            assert!(file == text, "{dir}/{name} is out of date: run `make crds`");
        }
        names.push(name);
    }
    names.sort();
    for dir in ["crds", "charts/perennial/files/crds"] {
        let mut found: Vec<String> = fs::read_dir(root.join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names, "{dir}");
    }
}

/// kserve's community: webhook time-outs at 300 models.
#[test]
fn nothing_of_ours_stands_on_the_write_path() {
    for crd in perennial::api::crds() {
        let strategy = &crd["spec"]["conversion"]["strategy"];
        assert!(strategy.is_null() || strategy == "None", "{strategy}");
    }
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/perennial/templates");
    for file in fs::read_dir(templates).unwrap() {
        let file = file.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("WebhookConfiguration"), "{}", file.display());
    }
}

/// `perennial crds | head`.
#[test]
fn a_reader_that_has_enough_ends_the_program_without_a_word() {
    use std::{
        io::Read,
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
    };
    let mut program = Command::new(env!("CARGO_BIN_EXE_perennial"))
        .arg("crds")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = [0; 10];
    let mut output = program.stdout.take().unwrap();
    output.read_exact(&mut start).unwrap();
    drop(output);
    let ended = program.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.signal(), said.as_ref()), (Some(13), ""));
}
