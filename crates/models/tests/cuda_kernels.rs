//! The CUDA kernels, run on the CPU: `cuda/test.cpp` compares each with plain loops and with itself in other batches.

use std::path::Path;
use std::process::Command;

#[test]
fn kernels_equal_plain_loops_and_themselves_in_any_batch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let out = tempfile::tempdir().unwrap();
    let program = out.path().join("kernels");
    // Without contraction, as the kernels' intrinsics ask for; longjmp from fiber to fiber is what _FORTIFY_SOURCE
    // forbids; a kernel reads four values as one, which C++'s aliasing rules forbid and CUDA's compiler allows. A read
    // that is not aligned, which a GPU refuses, ends the program.
    let options = [
        "-O2 -std=c++17 -ffp-contract=off -fno-strict-aliasing -U_FORTIFY_SOURCE -w",
        "-fsanitize=alignment -fsanitize-undefined-trap-on-error",
    ];
    let mut compiler = Command::new("c++");
    compiler
        .args(options.iter().flat_map(|part| part.split(' ')))
        .arg("-o")
        .arg(&program)
        .arg(folder.join("test.cpp"));
    let compiled = match compiler.output() {
        Ok(compiled) => compiled,
        Err(error) => {
            eprintln!("skipped: no C++ compiler: {error}");
            return;
        }
    };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let run = Command::new(&program).output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("0 failures"), "{:?}: {text}", run.status);
}
