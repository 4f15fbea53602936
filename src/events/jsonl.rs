//! `metrics.jsonl`: written a whole line at a time, read back whole or while it grows.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Record, Sink};
use crate::{Error, Result};

/// Appends records to a file. A write that fails is told once on stderr and counted; training goes on.
pub struct Jsonl {
    path: PathBuf,
    file: File,
    /// Length of the file up to the last whole line.
    len: u64,
    lost: usize,
}

impl Jsonl {
    /// Opens or creates `path`; a torn last line is cut off.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened for writing.
    pub fn append(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(Error::io(&path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(&path))?;
        let len = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1) as u64;
        file.set_len(len).map_err(Error::io(&path))?;
        Ok(Self { path, file, len, lost: 0 })
    }

    /// Records that could not be written.
    pub fn lost(&self) -> usize {
        self.lost
    }

    fn write(&mut self, record: &Record) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.len += line.len() as u64;
        Ok(())
    }
}

impl Sink for Jsonl {
    fn record(&mut self, record: &Record) {
        if let Err(error) = self.write(record) {
            // Half a line must not spoil the next one; should this fail too, the reader names the line.
            let _ = self.file.set_len(self.len);
            if self.lost == 0 {
                let text = format!("{}: {error}; training goes on, unrecorded", self.path.display());
                let _ = writeln!(std::io::stderr(), "warn   {text}");
            }
            self.lost += 1;
        }
    }
}

/// All records of a file. A last line without its end, left by a kill, is ignored.
///
/// # Errors
/// [`Error::Input`] with the line number for a line that is no record, [`Error::Io`] if it cannot be read.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for_each(path, |record| records.push(record))?;
    Ok(records)
}

/// As [`read`], one record at a time: a file may be larger than memory.
///
/// # Errors
/// As [`read`].
pub fn for_each(path: impl AsRef<Path>, mut take: impl FnMut(Record)) -> Result<()> {
    let path = path.as_ref();
    let reader = BufReader::new(File::open(path).map_err(Error::io(path))?);
    scan(path, reader, 0, |record, _| take(record)).map(|_| ())
}

/// Follows a file that another process writes.
pub struct Tail {
    path: PathBuf,
    file: File,
    position: u64,
    lines: usize,
}

impl Tail {
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = File::open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, file, position: 0, lines: 0 })
    }

    /// What has been written since the last call. When a resumed run has rewritten the file, everything again
    /// from the first record, which restarts the run for whoever reads it.
    pub fn poll(&mut self) -> Result<Vec<Record>> {
        if let Ok(file) = File::open(&self.path) {
            let shrunk = file.metadata().is_ok_and(|now| now.len() < self.position);
            if shrunk || identity(&file) != identity(&self.file) {
                (self.file, self.position, self.lines) = (file, 0, 0);
            }
        }
        self.file.seek(SeekFrom::Start(self.position)).map_err(Error::io(&self.path))?;
        let (records, bytes) = parse(&self.path, BufReader::new(&self.file), self.lines)?;
        self.position += bytes;
        self.lines += records.len();
        Ok(records.into_iter().map(|(record, _)| record).collect())
    }
}

#[cfg(unix)]
fn identity(file: &File) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    file.metadata().ok().map(|metadata| metadata.ino())
}

#[cfg(not(unix))]
fn identity(file: &File) -> Option<std::time::SystemTime> {
    file.metadata().ok().and_then(|metadata| metadata.created().ok())
}

/// Rewrites `path` without what follows step `step`: a run resumed there supersedes it. Returns what the clock
/// of the run showed at the last record kept; 0 if there is no file.
///
/// # Errors
/// As [`read`].
pub fn truncate_after(path: impl AsRef<Path>, step: usize) -> Result<f64> {
    let path = path.as_ref();
    if !path.exists() {
        return Ok(0.0);
    }
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let (mut records, _) = parse(path, bytes.as_slice(), 0)?;
    let superseded = |(record, _): &(Record, u64)| record.event.step().is_some_and(|s| s > step);
    records.truncate(records.iter().position(superseded).unwrap_or(records.len()));
    let (seconds, end) = records.last().map_or((0.0, 0), |(record, end)| (record.t, *end));

    let new = path.with_extension("jsonl.new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&bytes[..end as usize])?;
        file.sync_all()
    };
    write().map_err(Error::io(&new))?;
    fs::rename(&new, path).map_err(Error::io(path))?;
    Ok(seconds)
}

/// Whole lines, each record with the offset of its end, and how many bytes they take.
fn parse(path: &Path, reader: impl BufRead, lines_before: usize) -> Result<(Vec<(Record, u64)>, u64)> {
    let mut records = Vec::new();
    let end = scan(path, reader, lines_before, |record, end| records.push((record, end)))?;
    Ok((records, end))
}

/// Hands over the record of each whole line with the offset of its end; returns how many bytes they take.
fn scan(path: &Path, mut reader: impl BufRead, lines_before: usize, mut take: impl FnMut(Record, u64)) -> Result<u64> {
    let (mut lines, mut end, mut line) = (lines_before, 0, Vec::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(Error::io(path))?;
        if line.last() != Some(&b'\n') {
            return Ok(end);
        }
        lines += 1;
        end += bytes as u64;
        let record = serde_json::from_slice(&line).map_err(|error| {
            Error::input("not a record of a run")
                .file(path)
                .line(lines)
                .found(error)
                .expected("one event a line, as training writes them")
        })?;
        take(record, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Event, Step};

    fn step(step: usize) -> Record {
        Record { run: "é".into(), t: step as f64, event: Event::Step(Step { step, ..Step::default() }) }
    }

    fn file_with(steps: std::ops::RangeInclusive<usize>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut jsonl = Jsonl::append(&path).unwrap();
        steps.for_each(|s| jsonl.record(&step(s)));
        (dir, path)
    }

    fn tear(path: &Path) {
        let torn = &serde_json::to_vec(&step(9)).unwrap()[..9];
        OpenOptions::new().append(true).open(path).unwrap().write_all(torn).unwrap();
    }

    #[test]
    fn a_torn_last_line_is_ignored_by_readers_and_cut_by_the_writer() {
        let (_dir, path) = file_with(1..=3);
        tear(&path);
        assert_eq!(read(&path).unwrap(), [step(1), step(2), step(3)]);
        Jsonl::append(&path).unwrap().record(&step(4));
        assert_eq!(read(&path).unwrap(), [step(1), step(2), step(3), step(4)]);
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let (_dir, path) = file_with(1..=2);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"<html>\n").unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn the_tail_sees_only_what_is_new_and_whole() {
        let (_dir, path) = file_with(1..=2);
        let mut tail = Tail::open(&path).unwrap();
        assert_eq!(tail.poll().unwrap(), [step(1), step(2)]);
        assert_eq!(tail.poll().unwrap(), []);
        let line = serde_json::to_string(&step(3)).unwrap() + "\n";
        let (first, second) = line.as_bytes().split_at(9);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(first).unwrap();
        assert_eq!(tail.poll().unwrap(), []);
        file.write_all(second).unwrap();
        assert_eq!(tail.poll().unwrap(), [step(3)]);
    }

    #[test]
    fn resuming_supersedes_later_records_and_the_tail_starts_over() {
        let (_dir, path) = file_with(1..=5);
        let mut tail = Tail::open(&path).unwrap();
        tail.poll().unwrap();
        tear(&path);
        assert_eq!(truncate_after(&path, 3).unwrap(), 3.0);
        assert_eq!(read(&path).unwrap(), [step(1), step(2), step(3)]);
        Jsonl::append(&path).unwrap().record(&step(4));
        assert_eq!(tail.poll().unwrap(), [step(1), step(2), step(3), step(4)]);
        assert_eq!(truncate_after(path.with_file_name("none"), 3).unwrap(), 0.0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_counted_and_kills_nothing() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut jsonl = Jsonl { path: "/dev/full".into(), file, len: 0, lost: 0 };
        jsonl.record(&step(1));
        jsonl.record(&step(2));
        assert_eq!(jsonl.lost(), 2);
    }
}
