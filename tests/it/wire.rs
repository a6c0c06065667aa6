//! Frames on a connection of which the test says what kind it is and what it proves.

use crate::world::{PATIENCE, frame};
use bester::transport::{Socket, SocketReader};
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Instant;

pub struct Wire {
    socket: Arc<Socket>,
    reader: SocketReader,
    got: Vec<u8>,
}

impl Wire {
    pub fn on(socket: Socket) -> Wire {
        let socket = Arc::new(socket);
        let mut reader = SocketReader::new(Arc::clone(&socket));
        reader.set_timeout(Some(PATIENCE)).expect("a timeout");
        Wire { socket, reader, got: Vec::new() }
    }

    /// What it is sent through, for another thread.
    pub fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    pub fn try_to_send(&self, text: &str) -> io::Result<()> {
        write_all(&self.socket, &frame(text.as_bytes()))
    }

    #[track_caller]
    pub fn sends(&self, text: &str) {
        self.try_to_send(text).expect("the server reads");
    }

    /// The next frame; nothing at the end.
    ///
    /// # Errors
    /// How the connection broke.
    #[track_caller]
    pub fn receives(&mut self) -> io::Result<Option<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((length, rest)) = self.got.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if let Some(body) = rest.get(..length) {
                    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
                    self.got.drain(..4 + length);
                    return Ok(Some(text));
                }
            }
            self.got.reserve(16 << 10);
            match self.reader.read(&mut self.got) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => assert!(Instant::now() < deadline, "nothing came"),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes all of it.
pub fn write_all(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    match socket {
        Socket::Tls(tls) => tls.write_all(bytes),
        Socket::Tcp(stream) => (&*stream).write_all(bytes),
        Socket::Unix(_) => panic!("none is used here"),
    }
}
