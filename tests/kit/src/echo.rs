//! Questions of one byte over TCP, and their answers: what shows a wake-up that is lost.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{PATIENCE, Vm, eventually};

/// Has the small Linux guest send back every byte that comes to `port`, for connections one after the other.
pub async fn echo(vm: &mut Vm, port: u16) {
    vm.run(&format!(
        "(while true; do nc -l -p {port} -e cat; done) </dev/null >/dev/null 2>&1 & \
         n=0; until netstat -ltn | grep -q :{port} || [ $n = 500 ]; do usleep 20000; n=$((n+1)); done"
    ))
    .await;
}

/// Asks `count` questions at `address`, each after the answer to the one before; panics when one is not answered within
/// `patience`.
pub async fn questions(address: &str, count: usize, patience: Duration) {
    let mut stream = connect(address).await;
    stream.set_nodelay(true).expect("a TCP socket");
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        let byte = [u8::try_from(number % 251).unwrap_or_default()];
        let asked = Instant::now();
        stream.write_all(&byte).await.expect("a connection that takes a byte");
        let mut answer = [0];
        match tokio::time::timeout(patience, stream.read_exact(&mut answer)).await {
            Ok(read) => drop(read.expect("a connection that stays open")),
            Err(_) => panic!(
                "question {number} of {count} to {address} had no answer within {patience:?}; the slowest before took {slowest:?}"
            ),
        }
        assert_eq!(answer, byte, "the answer to question {number}");
        slowest = slowest.max(asked.elapsed());
    }
}

async fn connect(address: &str) -> TcpStream {
    let mut stream = None;
    eventually("the guest takes a connection", async || {
        stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.ok().and_then(Result::ok);
        stream.is_some()
    })
    .await;
    stream.expect("a connection")
}
