//! The bytes of the file: a line that names the format, then records of a length, a checksum and a statement.
//!
//! A process that ends in the middle of a write leaves a record that is cut off, or a tail of zeros: that is the end of the
//! file. Anything else that is no record is damage: the rest is read all the same, and whoever asked is told.

use aws_lc_rs::digest::{SHA256, digest};

use super::statement::Statement;

/// The format.
pub(super) const HEADER: &[u8; 16] = b"vestibule-end-1\n";
/// No statement is longer.
const LONGEST: usize = 256;
const FRAME: usize = 2 + CHECKSUM;
const CHECKSUM: usize = 8;

/// What a file said.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) statements: Vec<Statement>,
    /// Something between two records is none.
    pub(super) damaged: bool,
}

/// Puts a record after others.
pub(super) fn write(to: &mut Vec<u8>, statement: &Statement) {
    let payload = statement.encode();
    // Of 256 bytes at most: four subjects of 16.
    to.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
    to.extend_from_slice(&checksum(&payload));
    to.extend_from_slice(&payload);
}

/// Everything that can be read.
pub(super) fn read(bytes: &[u8]) -> Content {
    let mut content = Content::default();
    let Some(mut rest) = bytes.strip_prefix(HEADER) else {
        // Written whole under another name first, so it is never cut off here.
        content.damaged = true;
        return content;
    };
    while !rest.is_empty() {
        if let Some((statement, after)) = record(rest) {
            content.statements.push(statement);
            rest = after;
        } else if let Some(after) = (1..rest.len()).map(|at| &rest[at..]).find(|rest| record(rest).is_some()) {
            content.damaged = true;
            rest = after;
        } else {
            // The last write, cut off, is shorter than a record; what was never brought to the disk reads as zeros.
            let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            content.damaged |= written >= FRAME + LONGEST;
            break;
        }
    }
    content
}

fn record(bytes: &[u8]) -> Option<(Statement, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
    if length == 0 || length > LONGEST {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    (checksum(payload) == *sum).then(|| Statement::decode(payload)).flatten().map(|statement| (statement, rest))
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest(&SHA256, payload).as_ref()[..CHECKSUM]);
    sum
}
