//! Passwords and what is kept of them: Argon2id hashes as PHC strings (`$argon2id$v=19$m=19456,t=2,p=1$SALT$OUTPUT`).
//!
//! Hashing is slow on purpose, 40 ms and 19 MiB at the default cost, and runs on the thread of the connection that
//! asks. [`Permits`] bounds how many do so at once; a [`Permit`] owns the memory for it. Start reading at [`Permit`].
//!
//! Nothing here prints a password or a hash, not even with `{:?}`.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The most bytes of a password. Argon2 takes any number; this bounds what one login may carry.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// The most bytes of a hash record.
pub const HASH_BYTES_MAX: usize = 512;

/// The cost of a new hash: 19 MiB, two passes, one lane, of the equal choices that OWASP recommends for Argon2id.
const COST: Params = match Params::new(19_456, 2, 1, Some(Params::DEFAULT_OUTPUT_LEN)) {
    Ok(cost) => cost,
    Err(_) => panic!("seen by the compiler, never at run time"),
};
/// Bytes of a new salt.
const SALT_BYTES: usize = 16;

// What an imported record may cost at most. Each login with it costs that again, so the bounds keep one record from
// holding a permit for minutes or from taking all memory.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;

/// Stands in for the record of a user who does not exist. No password is known for it.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$YmVzdGVyOiBubyBvbmUuLg$\
                      ZmxEaskn/H8EFkCXrszTl4h5gXEbLcM/4Vrq5bWdGxA";

/// Why a password or a hash cannot be used. Says nothing of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordError {
    /// A new password is too short.
    TooShort {
        /// The least bytes that it must have.
        minimum: usize,
    },
    /// A password has more than [`PASSWORD_BYTES_MAX`] bytes.
    TooLong,
    /// A text is not a hash record that we can verify; the reason follows "password hash".
    BadHash(&'static str),
    /// The system gave no random bytes for a salt.
    NoRandom(getrandom::Error),
    /// There is no memory for hashing. Trying again later may help.
    NoMemory,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { minimum } => write!(f, "a password has at least {minimum} bytes"),
            Self::TooLong => write!(f, "a password has at most {PASSWORD_BYTES_MAX} bytes"),
            Self::BadHash(reason) => write!(f, "the password hash {reason}"),
            Self::NoRandom(_) => f.write_str("the system gave no random bytes"),
            Self::NoMemory => f.write_str("no memory to hash a password"),
        }
    }
}

impl std::error::Error for PasswordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoRandom(e) => Some(e),
            _ => None,
        }
    }
}

/// A password as somebody typed or sent it, at most [`PASSWORD_BYTES_MAX`] bytes. Nothing is trimmed or normalised.
///
/// Its bytes are overwritten when it is dropped. That is as much as safe code can do: copies that were made on the way
/// here, in a socket's buffer say, are not reached.
pub struct Password(Vec<u8>);

impl Password {
    /// Takes `text` over.
    ///
    /// # Errors
    /// [`PasswordError::TooLong`]. Such a text is nobody's password.
    pub fn new(text: String) -> Result<Self, PasswordError> {
        // First, so that what is too long is overwritten as well.
        let password = Self(text.into_bytes());
        if password.0.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        Ok(password)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this may become somebody's password: it has at least `minimum` bytes.
    ///
    /// # Errors
    /// [`PasswordError::TooShort`].
    pub fn check_new(&self, minimum: usize) -> Result<(), PasswordError> {
        if self.0.len() < minimum { Err(PasswordError::TooShort { minimum }) } else { Ok(()) }
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a reader the compiler may leave the writes out.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What is kept of a password: a PHC string that [`Permit::verify`] understands.
///
/// New hashes are Argon2id. Records of Argon2i and Argon2d are understood too, so that accounts can be brought along
/// from elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(Box<str>);

impl Hash {
    /// Takes a PHC string of Argon2 (version 16 or 19) within our bounds: [`HASH_BYTES_MAX`] bytes, 256 MiB of
    /// memory, 64 passes, 16 lanes. It must name `m`, `t` and `p` and nothing else.
    ///
    /// # Errors
    /// [`PasswordError::BadHash`] with the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        Record::parse(text)?;
        Ok(Self(text.into()))
    }

    /// The PHC string. Whoever has it can try passwords at leisure: it belongs into the database and an export only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

/// A PHC string, taken apart and checked.
struct Record {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Salt,
    output: Output,
}

impl Record {
    fn parse(text: &str) -> Result<Self, PasswordError> {
        let bad = PasswordError::BadHash;
        if text.len() > HASH_BYTES_MAX {
            return Err(bad("has more than 512 bytes"));
        }
        let phc = PasswordHash::new(text).map_err(|_| bad("is no PHC string"))?;
        let algorithm = Algorithm::from_str(phc.algorithm.as_str()).map_err(|_| bad("is not of argon2id, argon2i or argon2d"))?;
        let version = phc.version.and_then(|v| Version::try_from(v).ok());
        let version = version.ok_or(bad("is not of version 16 or 19"))?;
        // Other parameters change the output in ways that we do not compute, and a name that stands twice is read
        // differently by different programs.
        let mut names: Vec<_> = phc.params.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        if !names.iter().map(|name| name.as_str()).eq(["m", "p", "t"]) {
            return Err(bad("does not have the parameters m, t and p, each once"));
        }
        let params = Params::try_from(&phc).map_err(|_| bad("has impossible parameters"))?;
        if params.m_cost() > MEMORY_KIB_MAX {
            return Err(bad("asks for more than 256 MiB of memory (m=262144)"));
        }
        if params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
            return Err(bad("asks for more than 64 passes (t) or 16 lanes (p)"));
        }
        Ok(Self { algorithm, version, params, salt: phc.salt.ok_or(bad("has no salt"))?, output: phc.hash.ok_or(bad("has no output"))? })
    }
}

/// Hashes a new password in memory of its own: for commands, which hash one. A server's threads use
/// [`Permit::hash`].
///
/// # Errors
/// [`PasswordError::NoRandom`] or [`PasswordError::NoMemory`].
pub fn hash(password: &Password) -> Result<Hash, PasswordError> {
    hash_in(&mut Memory::default(), password)
}

fn hash_in(memory: &mut Memory, password: &Password) -> Result<Hash, PasswordError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(PasswordError::NoRandom)?;
    let salt = Salt::new(&salt).map_err(|_| PasswordError::BadHash("has no salt"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, COST);
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    memory.fill(&argon2, &COST, password, &salt, &mut output)?;
    let output = Output::new(&output).map_err(|_| PasswordError::BadHash("has no output"))?;
    Hash::parse(&format!("$argon2id$v=19${COST}${salt}${output}"))
}

fn verify_in(memory: &mut Memory, password: &Password, hash: &str) -> Result<bool, PasswordError> {
    let record = Record::parse(hash)?;
    let argon2 = Argon2::new(record.algorithm, record.version, record.params.clone());
    let mut buffer = [0; Output::MAX_LENGTH];
    // An `Output` is never longer than MAX_LENGTH.
    let output = &mut buffer[..record.output.len()];
    memory.fill(&argon2, &record.params, password, &record.salt, output)?;
    // Looks at every byte, so that the time tells nothing of how many agree.
    let expected = record.output.as_bytes();
    let differing = output.iter().zip(expected).fold(0, |all, (a, b)| all | (a ^ b));
    Ok(std::hint::black_box(differing) == 0)
}

/// What Argon2 computes in. Kept between uses, so that a login does not have 19 MiB mapped and cleared for it.
#[derive(Default)]
struct Memory(Vec<Block>);

impl Memory {
    /// Blocks (KiB) that are kept; what a costlier record needed is given back.
    const BLOCKS_KEPT: usize = COST.block_count();

    fn fill(
        &mut self,
        argon2: &Argon2<'_>,
        params: &Params,
        password: &Password,
        salt: &Salt,
        output: &mut [u8],
    ) -> Result<(), PasswordError> {
        let blocks = params.block_count();
        if self.0.len() < blocks {
            // Nothing in it is of use: without this it would be copied.
            self.0.clear();
            let reserved = self.0.try_reserve_exact(blocks);
            reserved.map_err(|_| PasswordError::NoMemory)?;
            self.0.resize(blocks, Block::new());
        }
        argon2
            .hash_password_into_with_memory(password.as_bytes(), salt, output, &mut self.0[..])
            .map_err(|_| PasswordError::BadHash("cannot be computed"))
    }

    fn shrink(&mut self) {
        self.0.truncate(Self::BLOCKS_KEPT);
        self.0.shrink_to(Self::BLOCKS_KEPT);
    }
}

/// How many passwords may be hashed at once. Clones share the same bound.
///
/// Once that many have been hashed at once, 19 MiB are kept for each of them.
#[derive(Clone)]
pub struct Permits(Arc<Shared>);

struct Shared {
    /// The memory of the permits that nobody holds. Held for a push or a pop only, never while anything is hashed.
    free: Mutex<Vec<Memory>>,
    returned: Condvar,
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Vec<Memory>> {
        // A push or a pop that panicked has not happened.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permits {
    /// Makes `count` permits; at least one.
    pub fn new(count: usize) -> Self {
        let free = (0..count.max(1)).map(|_| Memory::default()).collect();
        Self(Arc::new(Shared { free: Mutex::new(free), returned: Condvar::new() }))
    }

    /// Waits for a permit until `deadline`. A `deadline` that has passed takes one that is free, or none.
    pub fn acquire(&self, deadline: Instant) -> Option<Permit> {
        let mut free = self.0.free();
        loop {
            // The last that came back, so that a quiet server keeps working in the same memory. Looked at before
            // the clock: whoever was woken must not leave without the permit that woke him.
            if let Some(memory) = free.pop() {
                return Some(Permit { memory, home: Arc::clone(&self.0) });
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            if left.is_zero() {
                return None;
            }
            free = self.0.returned.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permits({} free)", self.0.free().len())
    }
}

/// The right to hash, and the memory to do it in. Goes back when it is dropped, also by a panic.
pub struct Permit {
    memory: Memory,
    home: Arc<Shared>,
}

impl Permit {
    /// Hashes a new password with Argon2id, 19 MiB, two passes, one lane and a new random salt.
    ///
    /// # Errors
    /// [`PasswordError::NoRandom`] or [`PasswordError::NoMemory`].
    pub fn hash(&mut self, password: &Password) -> Result<Hash, PasswordError> {
        hash_in(&mut self.memory, password)
    }

    /// Whether `hash` was made of `password`. Costs what the hash says, which may be more or less than a new one.
    ///
    /// # Errors
    /// [`PasswordError::NoMemory`]: nothing is known then.
    pub fn verify(&mut self, password: &Password, hash: &Hash) -> Result<bool, PasswordError> {
        verify_in(&mut self.memory, password, hash.as_str())
    }

    /// Takes as long as [`Permit::verify`] with a hash of the default cost, and knows no right password: for a user
    /// who does not exist, so that the time does not tell which names do. (A record that was imported with another
    /// cost takes its own time.)
    ///
    /// # Errors
    /// As of [`Permit::verify`].
    pub fn verify_unknown(&mut self, password: &Password) -> Result<(), PasswordError> {
        verify_in(&mut self.memory, password, NOBODY).map(drop)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        memory.shrink();
        self.home.free().push(memory);
        self.home.returned.notify_one();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit(..)")
    }
}

#[cfg(test)]
mod tests;
