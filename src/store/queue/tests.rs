use super::*;
use std::sync::Arc;
use std::time::Duration;

fn size(rows: usize, bytes: usize) -> Size {
    Size { rows, bytes }
}

fn queue() -> Queue<u32> {
    Queue::new(size(3, 10))
}

const ALL: Size = Size { rows: usize::MAX, bytes: usize::MAX };

#[test]
fn it_is_bounded_in_number_and_bytes() {
    let queue = queue();
    assert_eq!(queue.push(1, size(1, 6)), Ok(()));
    assert_eq!(queue.push(2, size(1, 5)), Err(Full::Now(2)));
    assert_eq!(queue.push(3, size(3, 0)), Err(Full::Now(3)));
    assert_eq!(queue.push(4, size(2, 4)), Ok(()));
    assert_eq!(queue.push(5, size(1, 0)), Err(Full::Now(5)));
    assert_eq!(queue.take(ALL, None), Taken::Some(vec![1, 4]));
    assert_eq!(queue.push(6, size(3, 10)), Ok(()), "there is room again");
}

#[test]
fn the_first_may_be_of_any_size() {
    let queue = queue();
    assert_eq!(queue.push(1, size(usize::MAX, usize::MAX)), Ok(()));
    assert_eq!(queue.push(2, size(1, 0)), Err(Full::Now(2)));
    assert_eq!(queue.take(size(1, 1), None), Taken::Some(vec![1]));
}

#[test]
fn of_many_the_first_that_fit_are_taken() {
    let queue = queue();
    let refused = queue.push_all([(1, size(2, 0)), (2, size(2, 0)), (3, size(1, 0)), (4, size(1, 0))].into_iter());
    assert_eq!(refused, [2, 4]);
    assert_eq!(queue.take(ALL, None), Taken::Some(vec![1, 3]));
}

#[test]
fn no_more_is_taken_out_at_once_than_was_asked_for() {
    let queue = Queue::new(ALL);
    for (item, bytes) in [(1, 5), (2, 5), (3, 50), (4, 1), (5, 1), (6, 1)] {
        queue.push(item, size(1, bytes)).unwrap();
    }
    let take = || queue.take(size(2, 10), None);
    assert_eq!([take(), take(), take(), take()], [vec![1, 2], vec![3], vec![4, 5], vec![6]].map(Taken::Some));
}

#[test]
fn closed_it_takes_nothing_and_gives_what_it_has() {
    let queue = queue();
    queue.push(1, size(1, 0)).unwrap();
    queue.close();
    assert_eq!(queue.push(2, size(1, 0)), Err(Full::Forever(2)));
    assert_eq!(queue.push_all([(3, size(0, 0))].into_iter()), [3]);
    assert_eq!(queue.take(ALL, None), Taken::Some(vec![1]));
    assert_eq!(queue.take(ALL, None), Taken::Closed);
}

#[test]
fn whoever_waits_is_woken() {
    let queue = Arc::new(queue());
    assert_eq!(queue.take(ALL, Some(Instant::now() + Duration::from_millis(1))), Taken::Nothing);
    let waiting = Arc::clone(&queue);
    let waiter = crate::thread::spawn("waiter", 64 << 10, move || (waiting.take(ALL, None), waiting.take(ALL, None))).unwrap();
    queue.push_all([(1, size(1, 0))].into_iter());
    // It may have taken the first already, and waits again.
    queue.close();
    assert_eq!(waiter.join().unwrap(), (Taken::Some(vec![1]), Taken::Closed));
}
