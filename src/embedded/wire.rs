//! The server's end of a connection: counts what leaves, and can be reset from outside.
//!
//! hyper closes a connection politely at best; clients must also live through a reset in the middle
//! of a body or instead of an answer, so the socket is wrapped in something that can do it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::lock;
use super::record::Entry;

/// What a request can do to the connection that it came by.
#[derive(Clone, Default)]
pub(super) struct Control(Arc<ControlState>);

#[derive(Default)]
struct ControlState {
    reset: AtomicBool,
    waker: AtomicWaker,
    entry: Mutex<Option<Arc<Entry>>>,
}

impl Control {
    /// Resets the connection; nothing that is still buffered is sent.
    pub(super) fn reset(&self) {
        self.0.reset.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }

    /// From now on what leaves is counted for this request.
    pub(super) fn count_for(&self, entry: &Arc<Entry>) {
        *lock(&self.0.entry) = Some(Arc::clone(entry));
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.0.waker.register(context.waker());
        if self.0.reset.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(bytes)), Some(entry)) = (&result, &*lock(&self.0.entry)) {
            entry.took(*bytes);
        }
        result
    }
}

/// A connection.
pub(super) struct Wire {
    stream: TcpStream,
    control: Control,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.control.0.reset.load(Ordering::SeqCst) {
            // Without lingering, closing sends RST and forgets what is buffered.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.control.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.control.check(context)?;
        let result = Pin::new(&mut self.stream).poll_write(context, buf);
        self.control.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.control.check(context)?;
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.control.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.control.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.control.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Takes connections.
pub(super) struct Door(pub(super) TcpListener);

impl Listener for Door {
    type Io = Wire;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Wire, Self::Addr) {
        let (stream, address) = <TcpListener as Listener>::accept(&mut self.0).await;
        let _ = stream.set_nodelay(true);
        (Wire { stream, control: Control::default() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Door>> for Control {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().control.clone()
    }
}
