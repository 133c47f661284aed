//! What is a default, what is refused, and who is stronger.

use super::*;
use crate::cli::args::{CompressionName, OnOff};
use crate::cli::help;

fn entries(text: &str) -> Result<Vec<Entry>> {
    file::parse(text, "config.toml", &help::command())
}

/// The arguments of a command line with this file.
fn args(text: &str, words: &str) -> crate::cli::args::ConvertArgs {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let words = std::iter::once("snapcow").chain(words.split(' ')).map(OsString::from);
    let words = words.chain(["--config".into(), path.into_os_string()]).collect();
    match parse(help::command(), words) {
        Ok(Args { command: crate::cli::args::Command::Convert(convert), .. }) => *convert,
        Ok(_) => panic!("another command"),
        Err(Refused::Words(error)) => panic!("{error}"),
        Err(Refused::File(error)) => panic!("{error}"),
    }
}

#[test]
fn the_file_is_stronger_than_the_program_and_weaker_than_the_command_line() {
    let text = "memory = \"1GiB\"\ncompression = \"zstd\"\n[convert]\nmemory = \"2GiB\"\nverify-encode = true\n\
                [check]\nmemory = 4096\n";
    let convert = args(text, "convert a b");
    assert_eq!((convert.how.memory, convert.how.compression), (2 << 30, CompressionName::Zstd));
    assert_eq!(convert.how.verify_encode, Some(OnOff::On));
    let convert = args(text, "convert a b --memory 64MiB --verify-encode off");
    assert_eq!((convert.how.memory, convert.how.verify_encode), (64 << 20, Some(OnOff::Off)));
}

#[cfg(feature = "openstack")]
#[test]
fn lists_are_replaced_as_a_whole() {
    let text = "tag = [\"a\", \"b\"]\ninsecure = true\n";
    let convert = args(text, "convert a b");
    assert_eq!((convert.image.tags, convert.cloud.cloud.insecure), (vec!["a".to_owned(), "b".into()], true));
    assert_eq!(args(text, "convert a b --tag c").image.tags, ["c"]);
}

#[test]
fn a_default_gives_way_to_what_it_does_not_fit() {
    let text = "level = 9\ncompression = \"zlib\"\nquiet = true\n";
    assert!(args(text, "convert a b").how.level.is_some());
    assert!(args(text, "convert a b --compression none").how.level.is_none());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let words = ["snapcow", "-v", "convert", "a", "b", "--config", path.to_str().unwrap()];
    let Ok(args) = parse(help::command(), words.map(OsString::from).to_vec()) else { panic!("refused") };
    assert_eq!((args.quiet, args.verbose), (false, 1));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, words) in [
        (
            "\nmemroy = 1\n",
            &["config.toml, line 2", "`memroy` is no option of any command", "did you mean `memory`?"][..],
        ),
        ("[convrt]\n", &["line 1", "no command `convrt`", "`convert`"]),
        ("[check]\nspool-disk = 1\n", &["line 2", "no option of `check`"]),
        ("[convert]\n\nmemory = \"12 miles\"\n", &["line 3", "memory", "12 miles"]),
        ("compression = \"lzma\"\n", &["line 1", "zlib"]),
        ("quiet = \"yes\"\n", &["line 1", "true or false"]),
        ("memory = [1, 2]\n", &["line 1", "one value"]),
        ("verbose = 1000\n", &["line 1", "verbose"]),
        ("memory = 1\nmemory = 2\n", &["line 2"]),
        ("memory = \n", &["line 1"]),
        ("force = true\n", &["line 1", "command line"]),
        ("source = \"x\"\n", &["line 1", "no option"]),
        ("memory = 1979-05-27\n", &["line 1", "datetime"]),
    ] {
        let error = entries(text).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        for word in words {
            assert!(error.to_string().contains(word), "no «{word}» in: {error}");
        }
    }
}

#[test]
fn a_file_that_is_none_is_no_panic() {
    for text in [
        "",
        "# nothing\n",
        "\u{feff}",
        "a.b.c = 1",
        "[[convert]]\nmemory = 1",
        "x = {",
        "\"\" = 1",
        "[convert.x]",
    ] {
        let _ = entries(text);
    }
}
