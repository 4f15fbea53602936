use std::path::PathBuf;

use sha2::Digest;

use super::*;

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, bytes: impl AsRef<[u8]>) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    File { _dir: dir, path }
}

fn rows(name: &str, bytes: impl AsRef<[u8]>) -> Vec<(usize, String)> {
    let table = read(&file(name, bytes).path, &mut Sha256::new()).unwrap();
    let flat = |row: Row| {
        let fields: Vec<_> = row.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (row.number, fields.join(" "))
    };
    table.rows.into_iter().map(flat).collect()
}

fn refusal(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let error = read(&file(name, bytes).path, &mut Sha256::new()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    assert!(text.contains(name), "{text}");
    text
}

fn owned(rows: &[(usize, &str)]) -> Vec<(usize, String)> {
    rows.iter().map(|&(number, text)| (number, text.to_owned())).collect()
}

#[test]
fn jsonl_skips_a_mark_and_blank_lines_and_keeps_line_numbers() {
    let text = "\u{FEFF}{\"a\": \"x\", \"b\": 1}\r\n\n{\"a\": \"é\\n\"}";
    assert_eq!(rows("d.jsonl", text), owned(&[(1, "a=\"x\" b=1"), (3, "a=\"é\\n\"")]));
}

#[test]
fn json_is_an_array_or_an_object_that_holds_one() {
    let expected = owned(&[(1, "a=1"), (2, "a=2")]);
    assert_eq!(rows("d.json", r#"[{"a": 1}, {"a": 2}]"#), expected);
    assert_eq!(rows("d.json", r#"{"version": "1", "data": [{"a": 1}, {"a": 2}]}"#), expected);
    assert!(refusal("d.json", r#"{"train": [], "test": []}"#).contains("`train`, `test`"));
    assert!(
        refusal("d.json", r#"[{"a": 1}, "b"]"#).contains("row 2: every row is a JSON object or a list; found a text")
    );
}

#[test]
fn csv_keeps_quoted_line_breaks() {
    let text = "a,b\r\n\"1,\n\"\"x\"\"\",2\r\n3,\r\n";
    assert_eq!(rows("d.csv", text), owned(&[(2, r#"a="1,\n\"x\"" b="2""#), (4, r#"a="3" b="""#)]));
    assert_eq!(rows("d.csv", "\u{FEFF}a\n\nx\ny"), owned(&[(3, r#"a="x""#), (4, r#"a="y""#)]));
    assert_eq!(rows("d.tsv", "a\tb\n1, 2\t3\n"), owned(&[(2, r#"a="1, 2" b="3""#)]));
}

#[test]
fn txt_is_split_at_blank_lines() {
    assert_eq!(rows("d.txt", "\none\r\ntwo\n \n\nthree"), owned(&[(2, r#"text="one\ntwo""#), (6, r#"text="three""#)]));
}

#[test]
fn broken_files_are_refused_with_their_place() {
    assert!(
        refusal("d.jsonl", "{\"a\": 1}\n{\"a\": 1,}\n").contains("line 2, column 9: not valid JSON: trailing comma")
    );
    assert!(refusal("d.jsonl", "[{\"a\": 1}]").contains("hint: one array of rows belongs in a .json file"));
    assert!(refusal("d.jsonl", "[\n{\"a\": 1}\n]").contains("hint: one array"));
    assert!(refusal("d.json", "{\"a\": 1}\n{\"a\": 2}").contains(".jsonl file"));
    assert!(refusal("d.jsonl", b"{\"a\": 1}\n{\"a\": \"\xFF\"}").contains("line 2: not UTF-8 text; found byte 0xFF"));
    assert!(refusal("d.json", b"[\n{\"a\": \"\xE9\"}]").contains("line 2: not UTF-8"));
    assert!(refusal("d.csv", b"a\r\n\"1\n\xFF\"\n").contains("line 3: not UTF-8"));
    assert!(refusal("d.csv", "a,b\n1,2\n1\n").contains("line 3: the row has another number of values"));
    assert!(refusal("d.csv", "a,b,a\n1,2,3\n").contains("found `a`"));
    assert!(refusal("d.csv", "a,b\n").contains("no rows"));
    assert!(refusal("d.json", "[]").contains("no rows"));
    assert!(refusal("d.jsonl", "").contains("empty"));
    assert!(refusal("d.txt", "\n \n").contains("no rows"));
    assert!(refusal("d.jsonl", b"\xFF\xFE{\0\"\0").contains("UTF-16"));
    assert!(refusal("d.json", b"[\0{\0").contains("UTF-16"));
    assert!(refusal("d.csv", b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(refusal("d.parquet", b"PAR1").contains(".jsonl, .json, .csv, .tsv, .txt"));
    assert!(refusal("d.json", "[".repeat(100_000)).contains("recursion limit"));
}

#[test]
fn rows_are_bounded() {
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_ROW_BYTES));
    assert!(refusal("d.jsonl", &long).contains("line 1: the row is too long; expected at most 16 MiB"));
    assert!(refusal("d.txt", &long).contains("too long"));
    assert!(
        refusal("d.csv", format!("a\n1\n{}\n", "x".repeat(MAX_ROW_BYTES + 1))).contains("line 3: the row is too long")
    );
}

#[cfg(unix)]
#[test]
fn what_is_not_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("d.jsonl");
    std::fs::create_dir(&directory).unwrap();
    let says = |path: &Path| read(path, &mut Sha256::new()).unwrap_err().to_string();
    assert!(says(&directory).contains("a directory"));
    assert!(says(&dir.path().join("none.csv")).contains("no such file"));
    let turning = dir.path().join("loop.csv");
    std::os::unix::fs::symlink(&turning, &turning).unwrap();
    assert!(says(&turning).contains("cannot be read"));
    let device = dir.path().join("zero.txt");
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
    assert!(says(&device).contains("a pipe or device"));
}

#[test]
fn the_hash_is_that_of_the_bytes() {
    let bytes = "\u{FEFF}a,b\n1,2\n";
    let mut hash = Sha256::new();
    read(&file("d.csv", bytes).path, &mut hash).unwrap();
    assert_eq!(hash.finalize(), Sha256::digest(bytes));
}

#[test]
fn a_fragment_names_one_of_several_arrays_and_lists_are_rows() {
    let text = r#"{"train": [["a", "x"], ["b", "y"]], "val": [["c", "z"]], "n": 1}"#;
    let File { _dir, path } = file("d.json", text);
    let read = |fragment: &str| read(&PathBuf::from(format!("{}#{fragment}", path.display())), &mut Sha256::new());
    let table = read("val").unwrap();
    assert_eq!((table.path, table.rows.len()), (path.clone(), 1));
    let fields = [("0", "c"), ("1", "z")].map(|(name, text)| (name.to_owned(), Value::from(text)));
    assert_eq!(table.rows[0].fields, IndexMap::from(fields));
    let refusal = |fragment| read(fragment).unwrap_err().to_string();
    assert!(refusal("test").contains("d.json: key test: there is no such key in the file; found the keys"));
    assert!(refusal("n").contains("key n: not an array of rows; found a number"));
    assert!(super::read(&path, &mut Sha256::new()).unwrap_err().to_string().contains("rows.json#key"));
}

#[test]
fn conll_sentences_end_at_blank_lines_and_keep_their_line() {
    let text = "-DOCSTART- -X- O O\n\nAnna NNP B-PER\nsings\tVB\tO\n\n\nKelso NNP B-LOC\n";
    let expected = [(3, r#"tokens=["Anna","sings"] tags=["B-PER","O"]"#), (7, r#"tokens=["Kelso"] tags=["B-LOC"]"#)];
    assert_eq!(rows("d.conll", text), owned(&expected));
    let error = refusal("d.bio", "Anna B-PER\nsings\n");
    assert!(error.contains("line 2: the line has one column; found `sings`"), "{error}");
}
