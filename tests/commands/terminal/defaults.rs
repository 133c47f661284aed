//! The file of defaults, from its place to the option.

use std::path::Path;

use super::{disk, run, said, snapcow};

/// A folder as `$XDG_CONFIG_HOME`.
fn home(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("snapcow")).unwrap();
    std::fs::write(folder.path().join("snapcow/config.toml"), text).unwrap();
    folder
}

/// Standard output of a rehearsal.
fn plan(home: &Path, raw: &Path, extra: &[&str]) -> String {
    let words = [&["convert", "--dry-run", raw.to_str().unwrap(), "-"], extra].concat();
    let output = run(snapcow(words).env("XDG_CONFIG_HOME", home));
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_line_is_stronger_than_the_file_and_that_than_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let raw = disk(folder.path(), 2);
    let home = home("[convert]\nspool-disk = 0\ncompression = \"zstd\"\n");
    let nothing = tempfile::tempdir().unwrap();
    let [built_in, from_file, chosen, none] = [
        plan(nothing.path(), &raw, &[]),
        plan(home.path(), &raw, &[]),
        plan(home.path(), &raw, &["--compression", "zlib"]),
        plan(home.path(), &raw, &["--no-config"]),
    ];
    let zstd = "zstd clusters need QEMU 5.1";
    assert!(!built_in.contains(zstd) && from_file.contains(zstd), "{from_file}");
    assert!(!chosen.contains(zstd) && chosen != built_in, "{chosen}");
    assert!(!none.contains(zstd), "{none}");
    let named = home.path().join("snapcow/config.toml");
    assert!(plan(nothing.path(), &raw, &["--config", named.to_str().unwrap()]).contains(zstd));
    let output =
        run(snapcow(["convert", "--dry-run", raw.to_str().unwrap(), "-"]).env("SNAPCOW_CONFIG", &named));
    assert!(String::from_utf8(output.stdout).unwrap().contains(zstd));
}

#[test]
fn a_variable_is_stronger_than_the_file() {
    let home = home("os-cloud = \"from-file\"\n");
    let folder = tempfile::tempdir().unwrap();
    let clouds = folder.path().join("clouds.yaml");
    std::fs::write(&clouds, "clouds: {}\n").unwrap();
    let told = |cloud: Option<&str>| {
        let mut command = snapcow(["convert", "--dry-run", "glance:x", "y.qcow2"]);
        command.env("XDG_CONFIG_HOME", home.path()).env("OS_CLIENT_CONFIG_FILE", &clouds);
        cloud.map(|cloud| command.env("OS_CLOUD", cloud));
        let output = run(&mut command);
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        said(&output)
    };
    assert!(told(None).contains("from-file"), "{}", told(None));
    assert!(told(Some("from-variable")).contains("from-variable"), "{}", told(Some("from-variable")));
}

#[test]
fn a_wrong_file_is_named_with_its_line_and_help_comes_all_the_same() {
    let wrong = home("[convert]\nmemroy = 1\n");
    let output = run(snapcow(["check", "x"]).env("XDG_CONFIG_HOME", wrong.path()));
    assert_eq!(output.status.code(), Some(2));
    let text = said(&output);
    for word in
        ["snapcow/config.toml, line 2", "`memroy` is no option of `convert`", "did you mean `memory`?"]
    {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(text.lines().count(), 1);
    for words in [&["--help"][..], &["convert", "-h"], &["--version"]] {
        assert!(run(snapcow(words).env("XDG_CONFIG_HOME", wrong.path())).status.success(), "{words:?}");
    }
    for (words, file) in
        [(["--config", "/nonexistent/x.toml"], "/nonexistent/x.toml"), (["--config", "/"], "`/`")]
    {
        let output = run(snapcow(["check", "x"]).args(words));
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(file), "{}", said(&output));
    }
    let output = run(snapcow(["check", "x"]).env("SNAPCOW_CONFIG", "/dev/zero"));
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
