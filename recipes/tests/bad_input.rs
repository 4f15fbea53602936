//! Every kind of bad input through the command: exit code 2, one error that names the culprit, nothing written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n";
const PAGE: &str = "<!DOCTYPE html><html><body>Log in</body></html>";

const RECIPE: &str = r#"version = 1
[model]
path = "model"
[adapter.lora]
targets = ["q_proj"]
[data]
train = "rows.csv"
[train]
max_steps = 1
"#;

/// A folder in which `lowrank train my.toml` works, until something in it is broken.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        copy(Path::new(GOLDEN).join("e2e/llama/base"), folder.at("model"));
        copy(Path::new(GOLDEN).join("e2e/llama/adapters/lora"), folder.at("adapter"));
        folder.write("my.toml", RECIPE);
        folder.write("rows.csv", "prompt,completion\na,b\nc,d\n");
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.at(name), bytes).unwrap();
    }

    fn replace(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.at(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, text.replacen(from, to, 1));
    }

    /// Changes the bytes of a file.
    fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.at(name)).unwrap();
        change(&mut bytes);
        self.write(name, bytes);
    }

    fn names(&self) -> Vec<PathBuf> {
        let mut names: Vec<_> = self.0.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    /// What a command that ends with exit code 2 says; it prints no data and leaves the folder as it was.
    fn refused(&self, arguments: &[&str]) -> String {
        let before = self.names();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
        let output = command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(self.names(), before, "{arguments:?} wrote something");
        stderr
    }
}

fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    fs::create_dir(&to).unwrap();
    for entry in from.as_ref().read_dir().unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), to.as_ref().join(entry.file_name())).unwrap();
        }
    }
}

/// A change to a good folder, and what the error then says.
type Case = (&'static str, Box<dyn Fn(&Folder)>, &'static [&'static str]);

fn case(what: &'static str, break_it: impl Fn(&Folder) + 'static, says: &'static [&'static str]) -> Case {
    (what, Box::new(break_it), says)
}

fn write(name: &'static str, bytes: impl AsRef<[u8]> + 'static) -> impl Fn(&Folder) {
    move |folder| folder.write(name, bytes.as_ref())
}

fn replace(name: &'static str, from: &'static str, to: &'static str) -> impl Fn(&Folder) {
    move |folder| folder.replace(name, from, to)
}

fn refuses(arguments: &[&str], cases: Vec<Case>) {
    for (what, break_it, says) in cases {
        let folder = Folder::new();
        break_it(&folder);
        let told = folder.refused(arguments);
        says.iter().for_each(|part| assert!(told.contains(part), "{what}: no {part:?} in:\n{told}"));
    }
}

const TRAIN: &[&str] = &["train", "my.toml", "--out", "out", "--no-tui", "--device", "cpu"];

#[test]
fn weights() {
    const FILE: &str = "model/model.safetensors";
    let damage = |change: fn(&mut Vec<u8>)| move |folder: &Folder| folder.damage(FILE, change);
    refuses(
        TRAIN,
        vec![
            case("empty", write(FILE, ""), &["model.safetensors", "too short"]),
            case("a header of 2^64 bytes", damage(|b| b[..8].fill(0xff)), &["model.safetensors", "longer than"]),
            case("not JSON", damage(|b| b[8] = b'x'), &["model.safetensors", "does not begin with"]),
            case("cut off", damage(|b| b.truncate(b.len() / 2)), &["model.safetensors", "tensor"]),
            case("bytes left over", damage(|b| b.push(0)), &["model.safetensors", "not fully covered"]),
            case("LFS pointer", write(FILE, POINTER), &["model.safetensors", "git lfs pull"]),
            case("web page", write(FILE, PAGE), &["model.safetensors", "web page"]),
            case("absent", |folder| fs::remove_file(folder.at(FILE)).unwrap(), &["model"]),
            case(
                "pickle",
                |folder| fs::rename(folder.at(FILE), folder.at("model/pytorch_model.bin")).unwrap(),
                &["pytorch_model.bin", "pickle"],
            ),
            case(
                "not a number",
                damage(|b| {
                    let end = b.len();
                    b[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
                }),
                &["model.safetensors", "tensor", "1 of"],
            ),
            case(
                "shards that lead out",
                |folder| {
                    fs::remove_file(folder.at(FILE)).unwrap();
                    folder.write("model/model.safetensors.index.json", r#"{"weight_map": {"w": "../rows.csv"}}"#);
                },
                &["index.json", "../rows.csv"],
            ),
        ],
    );
}

#[test]
fn gguf_files() {
    let gguf = |change: fn(&mut Vec<u8>)| {
        move |folder: &Folder| {
            folder.write("model.gguf", fs::read(Path::new(GOLDEN).join("gguf/llama.gguf")).unwrap());
            folder.damage("model.gguf", change);
            folder.replace("my.toml", "\"model\"", "\"model.gguf\"");
        }
    };
    refuses(
        TRAIN,
        vec![
            case("cut off", gguf(|b| b.truncate(b.len() - 100)), &["model.gguf", "tensor"]),
            case("version 1", gguf(|b| b[4] = 1), &["model.gguf", "version"]),
            case("2^64 keys", gguf(|b| b[16..24].fill(0xff)), &["model.gguf"]),
            case("web page", gguf(|b| *b = PAGE.into()), &["model.gguf", "web page"]),
        ],
    );
}

#[test]
fn configuration_and_tokenizer() {
    const CONFIG: &str = "model/config.json";
    refuses(
        TRAIN,
        vec![
            case(
                "no width",
                replace(CONFIG, "\"hidden_size\": 96", "\"hidden_size\": 0"),
                &["config.json", "hidden_size"],
            ),
            case(
                "heads that do not divide",
                replace(CONFIG, "\"num_attention_heads\": 4", "\"num_attention_heads\": 5"),
                &["config.json", "num_attention_heads"],
            ),
            case(
                "10^9 layers",
                replace(CONFIG, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000"),
                &["config.json", "num_hidden_layers"],
            ),
            case(
                "another family",
                replace(CONFIG, "\"model_type\": \"llama\"", "\"model_type\": \"mamba\""),
                &["config.json", "model_type", "mamba"],
            ),
            case(
                "a layer too many",
                replace(CONFIG, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
                &["missing: 9", "model.layers.2."],
            ),
            case("broken", write(CONFIG, "{"), &["config.json"]),
            case("absent", |folder| fs::remove_file(folder.at(CONFIG)).unwrap(), &["model", "config.json"]),
            case(
                "a token past the embedding",
                |folder| {
                    folder.replace(
                        "model/tokenizer.json",
                        "\"added_tokens\": [",
                        "\"added_tokens\": [{\"id\": 512, \"content\": \"<new>\", \"single_word\": false, \
                         \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true},",
                    )
                },
                &["tokenizer", "512"],
            ),
            case("tokenizer that is a page", write("model/tokenizer.json", PAGE), &["tokenizer.json"]),
            case(
                "no tokenizer",
                |folder| fs::remove_file(folder.at("model/tokenizer.json")).unwrap(),
                &["tokenizer.json"],
            ),
        ],
    );
}

#[test]
fn rows() {
    let jsonl = |bytes: &'static [u8]| {
        move |folder: &Folder| {
            folder.write("rows.jsonl", bytes);
            folder.replace("my.toml", "rows.csv", "rows.jsonl");
        }
    };
    let good = b"{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    let with = |line: &'static [u8]| jsonl([good, line].concat().leak());
    refuses(
        TRAIN,
        vec![
            case("not UTF-8", with(b"{\"prompt\": \"\xff\"}\n"), &["rows.jsonl", "line 2", "0xFF"]),
            case("UTF-16", jsonl(b"\xff\xfe{\0"), &["rows.jsonl", "UTF-16"]),
            case("trailing comma", with(b"{\"prompt\": \"a\",}\n"), &["rows.jsonl", "line 2", "trailing comma"]),
            case("an array", jsonl(b"[{\"prompt\": \"a\"}]"), &["rows.jsonl", ".json file"]),
            case("empty", write("rows.csv", ""), &["rows.csv", "empty"]),
            case("no rows", write("rows.csv", "prompt,completion\n"), &["rows.csv", "no rows"]),
            case("nothing to train on", write("rows.csv", "prompt,completion\na,\nb,\n"), &["rows.csv", "2"]),
            case(
                "all too long",
                |folder| {
                    folder.write("rows.csv", format!("prompt,completion\na,{}\n", "word ".repeat(200)));
                    folder.replace("my.toml", "[train]", "max_len = 16\n[train]");
                },
                &["rows.csv", "max_len", "1"],
            ),
            case("misspelt column", write("rows.csv", "promt,completion\na,b\n"), &["rows.csv", "promt", "prompt"]),
            case("a value missing", write("rows.csv", "prompt,completion\na,b\nc\n"), &["rows.csv", "line 3"]),
            case(
                "a number for text",
                with(b"{\"prompt\": 3, \"completion\": \"b\"}\n"),
                &["rows.jsonl", "line 2", "prompt"],
            ),
            case("LFS pointer", write("rows.csv", POINTER), &["rows.csv", "git lfs pull"]),
            case("absent", |folder| fs::remove_file(folder.at("rows.csv")).unwrap(), &["rows.csv", "no such file"]),
        ],
    );
}

#[test]
fn recipes() {
    refuses(
        TRAIN,
        vec![
            case("unknown key", replace("my.toml", "targets", "tragets"), &["my.toml:5:1", "did you mean `targets`?"]),
            case(
                "contradiction",
                replace("my.toml", "[\"q_proj\"]", "\"all-linear\"\nlayers = [1]"),
                &["layers", "list of module names"],
            ),
            case("two adapters", replace("my.toml", "[data]", "[adapter.full]\n[data]"), &["my.toml", "exactly one"]),
            case(
                "a target that is not there",
                replace("my.toml", "q_proj", "qproj"),
                &["targets", "\"qproj\"", "the model has q_proj"],
            ),
            case("a norm as target", replace("my.toml", "q_proj", "norm"), &["targets", "\"norm\"", "modules_to_save"]),
            case("no such model", replace("my.toml", "\"model\"", "\"modle\""), &["modle"]),
            case("no TOML", write("my.toml", "version = "), &["my.toml:1:"]),
            case(
                "rows longer than positions",
                replace("my.toml", "[train]", "max_len = 4096\n[train]"),
                &["data.max_len", "128"],
            ),
        ],
    );
}

#[test]
fn adapters() {
    const CONFIG: &str = "adapter/adapter_config.json";
    const TENSORS: &str = "adapter/adapter_model.safetensors";
    let generate: &[&str] = &["generate", "adapter", "--base", "model", "--prompt", "a", "--device", "cpu"];
    let cases = || {
        vec![
            case("rank 0", replace(CONFIG, "\"r\": 8", "\"r\": 0"), &["adapter_config.json", "key r"]),
            case("another rank", replace(CONFIG, "\"r\": 8", "\"r\": 4"), &["adapter_model", "[8, 256]", "[4, 256]"]),
            case("unknown kind", replace(CONFIG, "\"LORA\"", "\"LOHA\""), &["adapter_config.json", "LOHA"]),
            case("broken", write(CONFIG, "{"), &["adapter_config.json"]),
            case("LFS pointer", write(TENSORS, POINTER), &["adapter_model.safetensors", "git lfs pull"]),
            case("absent", |folder| fs::remove_file(folder.at(TENSORS)).unwrap(), &["adapter_model.safetensors"]),
            case(
                "pickle",
                |folder| fs::rename(folder.at(TENSORS), folder.at("adapter/adapter_model.bin")).unwrap(),
                &["adapter_model.bin", "pickle"],
            ),
            case(
                "of another base",
                |folder| {
                    fs::remove_dir_all(folder.at("model")).unwrap();
                    copy(Path::new(GOLDEN).join("e2e/qwen2/base"), folder.at("model"));
                },
                &["adapter_model.safetensors", "another model"],
            ),
        ]
    };
    refuses(generate, cases());
    refuses(&["merge", "adapter", "--base", "model", "--out", "merged"], cases());
    let folder = Folder::new();
    assert!(folder.refused(&["generate", "adapter", "--prompt", "a"]).contains("--base"));
    let own = folder.refused(&["merge", "adapter", "--base", "model", "--out", "model"]);
    assert!(own.contains("overwrite its own base"), "{own}");
}

#[test]
fn run_directories() {
    let folder = Folder::new();
    fs::create_dir(folder.at("out")).unwrap();
    folder.write("out/notes", "mine");
    assert!(folder.refused(TRAIN).contains("not empty"));
    let file = ["train", "my.toml", "--out", "rows.csv"];
    assert!(folder.refused(&file).contains("is a file"));
    let no_run = folder.refused(&["train", "--resume=out"]);
    assert!(no_run.contains("not a run directory"), "{no_run}");
    assert_eq!(fs::read_dir(folder.at("out")).unwrap().count(), 1);
}
