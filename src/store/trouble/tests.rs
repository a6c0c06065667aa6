use super::*;

fn damaged() -> StoreError {
    StoreError::Damaged { path: "/x/bester.db".into(), detail: "bad page".into() }
}

#[test]
fn it_is_said_once_when_it_begins_and_once_when_it_is_over() {
    let start = Instant::now();
    let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
    let mut troubles = Troubles::new("writing");
    assert_eq!(troubles.end(start), None);
    assert!(troubles.begin(start, StoreError::Busy).is_some_and(|words| words.contains("writing fails")));
    assert_eq!(troubles.begin(at(10), StoreError::Stopped), None);
    assert!(matches!(troubles.last(), StoreError::Stopped));
    assert!(troubles.begin(at(20), damaged()).is_some_and(|words| words.contains("/x/bester.db")), "it is worse than it was");
    assert_eq!(troubles.begin(at(30), damaged()), None);
    assert_eq!(troubles.end(at(61)).as_deref(), Some("writing works again, after 6 s"));
    assert_eq!(troubles.end(at(61)), None);
}

#[test]
fn it_is_not_over_as_long_as_it_comes_back_at_once() {
    let start = Instant::now();
    let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
    let mut troubles = Troubles::new("writing");
    troubles.begin(start, StoreError::Stopped);
    troubles.none(at(9));
    assert_eq!(troubles.begin(at(9), StoreError::Stopped), None);
    troubles.none(at(18));
    assert!(troubles.current.is_some());
    troubles.none(at(19));
    assert!(troubles.current.is_none());
}
