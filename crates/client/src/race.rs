//! Attempts of which one is enough: each begins a little after the one before, or at once when that one has failed,
//! as RFC 8305 has it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::time::{Instant, sleep_until};
use wombat_session::stagger;

/// The first success; without any, why each attempt failed, in their order.
pub(crate) async fn race<T, E, F>(attempts: impl IntoIterator<Item = F>) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting: Vec<Pin<Box<F>>> = attempts.into_iter().map(Box::pin).collect();
    let stagger = stagger(waiting.len());
    waiting.reverse();
    let mut failures: Vec<Option<E>> = waiting.iter().map(|_| None).collect();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut begun = 0;
    let mut next_at = Box::pin(sleep_until(Instant::now()));
    poll_fn(|context| {
        loop {
            let mut failed = false;
            let mut place = 0;
            while let Some((number, attempt)) = running.get_mut(place) {
                match attempt.as_mut().poll(context) {
                    Poll::Ready(Ok(success)) => return Poll::Ready(Ok(success)),
                    Poll::Ready(Err(error)) => {
                        failures[*number] = Some(error);
                        running.remove(place);
                        failed = true;
                    }
                    Poll::Pending => place += 1,
                }
            }
            let due = failed || begun == 0 || next_at.as_mut().poll(context).is_ready();
            match waiting.pop_if(|_| due) {
                Some(attempt) => {
                    running.push((begun, attempt));
                    begun += 1;
                    next_at.as_mut().reset(Instant::now() + stagger);
                }
                None if running.is_empty() && waiting.is_empty() => {
                    return Poll::Ready(Err(failures.drain(..).flatten().collect()));
                }
                None => return Poll::Pending,
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::pending;

    /// What one attempt comes to.
    #[derive(Clone, Copy)]
    enum Ends {
        Well,
        Badly,
        Never,
    }

    /// What comes of attempts, and how many of them begin.
    async fn check(attempts: &[Ends], expected: Result<usize, Vec<usize>>, begins: usize) {
        let begun = RefCell::new(Vec::new());
        let attempts = attempts.iter().enumerate().map(async |(number, ends)| {
            begun.borrow_mut().push(number);
            match ends {
                Ends::Well => Ok(number),
                Ends::Badly => Err(number),
                Ends::Never => pending().await,
            }
        });
        assert_eq!(race(attempts).await, expected);
        assert_eq!(begun.into_inner(), (0..begins).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_first_success_wins_and_others_begin_meanwhile() {
        use Ends::*;
        check(&[Well, Well], Ok(0), 1).await;
        check(&[Badly, Well, Well], Ok(1), 2).await;
        check(&[Never, Never, Well, Well, Well], Ok(2), 3).await;
        check(&[Never, Badly, Well], Ok(2), 3).await;
        check(&[Badly, Badly], Err(vec![0, 1]), 2).await;
        check(&[], Err(vec![]), 0).await;
    }
}
