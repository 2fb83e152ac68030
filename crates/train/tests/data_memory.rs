//! A file larger than what may be held is read all the same. In a process of its own: it measures that process.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::Path;

use candlewick_models::Tokenizer;
use candlewick_train::data::{DataOptions, Setup, Task, open};

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn memory_does_not_grow_with_the_file() {
    const ROWS: usize = 8000;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tokenizer = Tokenizer::open(&root.join("models/default")).unwrap().unwrap();
    let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    let word = "truth ".repeat(100);
    for row in 0..ROWS {
        // 12 kB a row, most of it in a column that nobody asks for: 96 MB.
        writeln!(
            file,
            "{{\"prompt\": \"{row} {word}\", \"completion\": \"{word}\", \"more\": \"{}\"}}",
            word.repeat(18)
        )
        .unwrap();
    }
    let size = file.as_file().metadata().unwrap().len();
    assert!(size > 90 << 20);
    let options = DataOptions::default();
    let task = Task::Completion;
    let setup = Setup {
        task,
        options: &options,
        tokenizer: &tokenizer,
        positions: 512,
        eos: Some(0),
        checkpoint_labels: &[],
        seed: 1,
        trains: true,
        stop: &|| false,
    };
    tokenizer.encode(&word, false).unwrap();
    let before = peak();
    let mut opened = open(&[file.path().to_path_buf()], &setup).unwrap();
    assert_eq!(opened.examples.len(), ROWS);
    for index in (0..ROWS).step_by(7).chain((0..ROWS).rev().step_by(501)) {
        let first = tokenizer.decode(&opened.examples.get(index).unwrap().input_ids[..3], true).unwrap();
        assert!(first.starts_with(&index.to_string()[..1]));
    }
    let grown = peak() - before;
    assert!(grown < 16 << 20, "{grown} bytes for a file of {size}");
}
