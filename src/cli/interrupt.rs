//! Ctrl-C, for commands that end in good order.

use std::io;

use futures_util::FutureExt;
use tokio::sync::watch;

/// A flag that turns true at Ctrl-C and stays so. From now on no Ctrl-C is missed; the second one ends the program
/// at once, whatever it hangs in. Needs a thread of the runtime that is not blocked.
pub(super) fn watched() -> io::Result<watch::Receiver<bool>> {
    let (flag, seen) = watch::channel(false);
    let mut first = Box::pin(tokio::signal::ctrl_c());
    // The handler is installed when the future is first polled.
    if let Some(already) = (&mut first).now_or_never() {
        already?;
        flag.send_replace(true);
        return Ok(seen);
    }
    tokio::spawn(async move {
        if first.await.is_ok() {
            flag.send_replace(true);
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(1);
            }
        }
    });
    Ok(seen)
}

/// Waits for the flag; for ever when it can no longer turn true.
pub(super) async fn of(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}
