//! The disk of `tests/disk` under a server: it forgets what was not synced, and fails when it is told to.

use crate::world::Home;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where its sources are.
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/disk");

/// The layer, and the program that makes what a power cut leaves; built once for all tests, and kept with what cargo builds.
fn built() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let build = |source: &str, name: &str, options: &[&str]| {
            // Another process of tests may use the old one, or make its own at the same time.
            let fresh = directory.join(format!("{name}.{}", std::process::id()));
            let mut cc = Command::new("cc");
            cc.args(["-O2", "-Wall", "-Wextra", "-Werror"]).args(options).arg("-o").arg(&fresh).arg(format!("{SOURCES}/{source}"));
            assert!(cc.args(["-ldl", "-lpthread"]).status().expect("cc runs").success(), "{source} cannot be compiled");
            let path = directory.join(name);
            fs::rename(fresh, &path).expect("a directory of cargo's");
            path
        };
        (build("disk.c", "disk.so", &["-shared", "-fPIC"]), build("cut.c", "disk-cut", &[]))
    })
}

/// The disk under the databases in one directory.
pub struct Disk {
    state: PathBuf,
    durable: PathBuf,
    control: PathBuf,
}

impl Disk {
    /// For `state`, in `home`. Everything that is there already is on the disk.
    pub fn under(home: &Path, state: &str) -> Disk {
        let home = home.canonicalize().expect("a directory");
        let disk = Disk { state: home.join(state), durable: home.join("durable"), control: home.join("control") };
        fs::create_dir_all(&disk.durable).expect("a directory");
        disk
    }

    /// For the server of this home.
    pub fn of(home: &Home) -> Disk {
        Disk::under(home.path(), "state")
    }

    /// Puts it under the program that this command starts.
    pub fn put_under(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &built().0).env("BESTER_DISK", &self.state);
        command.env("BESTER_DISK_IMAGE", &self.durable).env("BESTER_DISK_CONTROL", &self.control);
    }

    /// What it is to do from now on: see `disk.c`.
    pub fn order(&self, words: &str) {
        let fresh = self.control.with_extension("fresh");
        fs::write(&fresh, format!("{words}\n")).expect("a file");
        fs::rename(fresh, &self.control).expect("a file");
    }

    /// What has failed so far, a line each.
    pub fn failures(&self) -> Vec<String> {
        let told = fs::read_to_string(self.control.with_extension("told")).unwrap_or_default(); // there may be none
        told.lines().map(str::to_owned).collect()
    }

    /// The power fails; about so much of what was not synced is there nevertheless. Whoever used the files is dead.
    pub fn cut(&self, seed: u64, percent: u64) {
        assert!(fs::read_dir(&self.durable).expect("a directory").next().is_some(), "the layer was under nobody's files");
        let mut cut = Command::new(&built().1);
        cut.arg(&self.state).arg(&self.durable).args([seed.to_string(), percent.to_string()]);
        assert!(cut.output().expect("it runs").status.success());
    }
}
