//! What goes into one system call: many small packets as one piece of memory, large ones from where they are.
//!
//! To the kernel, each part of a write costs about as much as copying a kilobyte, and each call more than that.

use crate::frame::Packet;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::io::IoSlice;

/// What is not longer than this is copied.
const COPIED_BYTES_MAX: usize = 1 << 10;
/// How much is copied for one call. A socket takes a few times as much.
const GATHERED_BYTES_MAX: usize = 64 << 10;
/// How many parts one call has at most; the kernel takes 1,024.
const PARTS_MAX: usize = 64;

thread_local! {
    /// Where small packets stand one after the other; used again and again.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A part of a write.
enum Part<'a> {
    /// Copied; up to here.
    Gathered(usize),
    /// Where it is.
    Direct(&'a [u8]),
}

/// Hands as many bytes of `packets` to `write` as go into one call, `offset` bytes of the first packet left out.
pub(super) fn gather<T>(packets: &[Packet], mut offset: usize, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
    if let [packet] = packets
        && let [[], bytes, [], []] = packet.parts()
    {
        return write(&[IoSlice::new(bytes.get(offset..).unwrap_or_default())]);
    }
    GATHERED.with_borrow_mut(|gathered| {
        gathered.clear();
        let mut parts: SmallVec<[Part<'_>; PARTS_MAX]> = SmallVec::new();
        for part in packets.iter().flat_map(Packet::parts) {
            let skipped = offset.min(part.len());
            offset -= skipped;
            let part = &part[skipped..];
            if part.is_empty() {
                continue;
            }
            if part.len() > COPIED_BYTES_MAX {
                parts.push(Part::Direct(part));
            } else {
                if gathered.len() + part.len() > GATHERED_BYTES_MAX {
                    break;
                }
                gathered.extend_from_slice(part);
                match parts.last_mut() {
                    Some(Part::Gathered(end)) => *end = gathered.len(),
                    _ => parts.push(Part::Gathered(gathered.len())),
                }
            }
            if parts.len() == PARTS_MAX {
                break;
            }
        }
        let mut start = 0;
        let slices: SmallVec<[IoSlice<'_>; PARTS_MAX]> = parts
            .iter()
            .map(|part| match *part {
                Part::Gathered(end) => IoSlice::new(&gathered[std::mem::replace(&mut start, end)..end]),
                Part::Direct(bytes) => IoSlice::new(bytes),
            })
            .collect();
        write(&slices)
    })
}
