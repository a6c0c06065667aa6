//! Who there is, and who is here: all accounts by name, and the sessions of each.

use crate::name::{ConnId, Username};
use crate::store::Standing;
use foldhash::{HashMap, HashSet};
use std::collections::{BTreeMap, BTreeSet};

/// The table of users.
#[derive(Debug, Default)]
pub(super) struct Users {
    accounts: HashMap<Username, Account>,
    /// The names of those that have a session.
    online: BTreeSet<Username>,
    /// Who has come or gone since this was last taken, if anybody wants to know.
    news: Option<BTreeMap<Username, bool>>,
    /// The newest revision seen: a proof with a newer one brings news, one with an older one may be void.
    newest: u64,
    /// Names the current round of [`Users::once`].
    round: u64,
    /// Names the current answer of [`Users::count`].
    answer: u64,
}

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Username,
    /// The newest that was ever active: it only grows, and logins that were proved before it came are void. An
    /// account that was disabled has a higher one when it is active again.
    revision: u64,
    disabled: bool,
    pub(super) sessions: Vec<UserSession>,
    /// Letters on their way into the mailbox.
    pub(super) keeping: usize,
    /// The highest number that was told of a letter in the mailbox; 0 before the first.
    told: u64,
    /// The last round in which this account was named.
    round: u64,
    /// The last answer for which it was counted.
    answer: u64,
}

impl Account {
    /// A letter is in the mailbox. Whether it is the next after the one that was told of before.
    pub(super) fn told_of(&mut self, seq: u64) -> bool {
        let next = seq == self.told + 1;
        self.told = self.told.max(seq);
        next
    }

    /// Whether a delivery goes to the mailbox: for who is away, or for a session that is not given it at once. What is kept
    /// (`queue`) comes from there to all sessions then: one that was handed it as well could be given it twice. `asker` gets what
    /// its own message causes also when its input has ended.
    pub(super) fn goes_to_mailbox(&mut self, queue: bool, asker: Option<ConnId>) -> bool {
        let mut here = self.sessions.iter().filter(|session| !session.ending || Some(session.conn) == asker).peekable();
        let is_away = here.peek().is_none();
        let by_mailbox = if is_away { queue } else { here.any(|session| !session.is_given_at_once(queue)) };
        if by_mailbox && queue {
            self.feed_all();
        }
        by_mailbox
    }

    /// The sessions of which the live ones have had what one was handed: they were handed it as well, or have come later. If that
    /// one was handed it `alone`, none has: it comes to all of them from the mailbox, and nothing may overtake it.
    pub(super) fn that_had(&mut self, alone: bool) -> &[UserSession] {
        if alone {
            self.feed_all();
        }
        &self.sessions
    }

    /// Its sessions are fed from the mailbox, until they have caught up again.
    pub(super) fn feed_all(&mut self) {
        self.sessions.iter_mut().for_each(|session| session.live = false);
    }
}

/// A session in the table of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserSession {
    pub(super) conn: ConnId,
    /// Its input has ended: only what its own messages cause is delivered to it.
    pub(super) ending: bool,
    /// It acknowledges what comes to it through the mailbox.
    pub(super) ack: bool,
    /// Without acknowledgements: it has had all that was in the mailbox, and its socket takes what comes.
    pub(super) live: bool,
    /// Not everything that it was sent has left for its socket.
    pub(super) backlogged: bool,
}

impl UserSession {
    fn new(conn: ConnId, ack: bool) -> UserSession {
        UserSession { conn, ending: false, ack, live: false, backlogged: false }
    }

    /// Whether it is given a delivery at once. Otherwise the delivery goes to the mailbox, and comes to it from there. `queue`
    /// is what its type, or the answer, says of users who are away.
    pub(super) fn is_given_at_once(&self, queue: bool) -> bool {
        match (self.ack, queue) {
            (true, true) => false,
            (true, false) => !self.backlogged,
            // Of what its own messages cause: nothing comes to it from the mailbox any more.
            (false, true) => self.live || self.ending,
            (false, false) => true,
        }
    }
}

/// Who a name in a list of recipients stands for.
#[derive(Debug)]
pub(super) enum Named<'a> {
    /// There is no such account.
    Nobody,
    /// Somebody who was named before.
    Again,
    /// Somebody, and whether he counts.
    First { account: &'a mut Account, counts: bool },
}

/// Why a login that was proved is not accepted all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginError {
    /// The account was changed since the proof.
    Revoked,
    /// The user has as many sessions as he may.
    TooMany,
}

impl Users {
    /// Applies what is known of an account now, unless more is known already: what is read from the database at the
    /// same time by several threads may come in another order. Returns the sessions that must end.
    pub(super) fn apply(&mut self, name: Username, standing: Standing) -> Vec<ConnId> {
        let fresh =
            || Account { name: name.clone(), revision: 0, disabled: false, sessions: Vec::new(), keeping: 0, told: 0, round: 0, answer: 0 };
        let account = match standing {
            Standing::Active { revision } => {
                self.newest = self.newest.max(revision);
                let account = self.accounts.entry(name.clone()).or_insert_with(fresh);
                if revision <= account.revision {
                    return Vec::new();
                }
                account.revision = revision;
                account.disabled = false;
                account
            }
            Standing::Disabled => {
                let account = self.accounts.entry(name.clone()).or_insert_with(fresh);
                account.disabled = true;
                account
            }
            Standing::Removed => {
                self.goes(&name);
                return conns(self.accounts.remove(&name).map(|account| account.sessions).unwrap_or_default());
            }
        };
        let sessions = std::mem::take(&mut account.sessions);
        self.goes(&name);
        conns(sessions)
    }

    fn comes(&mut self, name: &Username) {
        if self.online.insert(name.clone()) {
            self.tell(name, true);
        }
    }

    fn goes(&mut self, name: &Username) {
        if self.online.remove(name) {
            self.tell(name, false);
        }
    }

    /// Who comes back at once was not away.
    fn tell(&mut self, name: &Username, online: bool) {
        if let Some(news) = &mut self.news
            && news.remove(name).is_none()
        {
            news.insert(name.clone(), online);
        }
    }

    /// Whether somebody wants to know who comes and goes.
    pub(super) fn watch(&mut self, wanted: bool) {
        match wanted {
            true => _ = self.news.get_or_insert_default(),
            false => self.news = None,
        }
    }

    /// Who has come (`true`) or gone since this was last taken.
    pub(super) fn news(&mut self) -> BTreeMap<Username, bool> {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The names of accounts that are not among these.
    pub(super) fn missing_in(&self, standings: &[(Username, Standing)]) -> Vec<Username> {
        let there: HashSet<&Username> = standings.iter().map(|(name, _)| name).collect();
        self.accounts.keys().filter(|name| !there.contains(name)).cloned().collect()
    }

    /// Whether a proof at this revision is newer than all that is known of the account. Of one that is disabled it
    /// is not: only whoever enables it says so.
    pub(super) fn is_news(&self, name: &Username, revision: u64) -> bool {
        self.accounts.get(name).map_or(revision > self.newest, |account| !account.disabled && revision > account.revision)
    }

    /// A session more for a user whose password was proved at `revision`; one that he has already is not counted twice.
    pub(super) fn add(&mut self, name: &Username, revision: u64, conn: ConnId, ack: bool, sessions_max: usize) -> Result<(), LoginError> {
        let account = self.accounts.get_mut(name).ok_or(LoginError::Revoked)?;
        if account.disabled || revision != account.revision {
            return Err(LoginError::Revoked);
        }
        if let Some(session) = account.sessions.iter_mut().find(|session| session.conn == conn) {
            *session = UserSession { backlogged: session.backlogged, ..UserSession::new(conn, ack) };
            return Ok(());
        }
        if account.sessions.len() >= sessions_max {
            return Err(LoginError::TooMany);
        }
        account.sessions.push(UserSession::new(conn, ack));
        if account.sessions.len() == 1 {
            self.comes(name);
        }
        Ok(())
    }

    /// A session less.
    pub(super) fn remove(&mut self, name: &Username, conn: ConnId) {
        let Some(account) = self.accounts.get_mut(name) else { return };
        account.sessions.retain(|session| session.conn != conn);
        if account.sessions.is_empty() {
            self.goes(name);
        }
    }

    /// From now on a session is delivered only what its own messages cause.
    pub(super) fn input_ended(&mut self, name: &Username, conn: ConnId) {
        let account = self.accounts.get_mut(name);
        for session in account.into_iter().flat_map(|account| &mut account.sessions) {
            session.ending |= session.conn == conn;
        }
    }

    /// The account of that name.
    pub(super) fn account(&mut self, name: &Username) -> Option<&mut Account> {
        self.accounts.get_mut(name)
    }

    /// A session of a user.
    pub(super) fn session(&mut self, name: &Username, conn: ConnId) -> Option<&mut UserSession> {
        self.account(name)?.sessions.iter_mut().find(|session| session.conn == conn)
    }

    /// The sessions of a user; `None` if there is no such account.
    pub(super) fn sessions(&self, name: &[u8]) -> Option<&[UserSession]> {
        self.accounts.get(name).map(|account| &account.sessions[..])
    }

    /// Begins a list of names in which each stands for one.
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Begins an answer, of which each account is counted once, however many lists name it.
    pub(super) fn begin_answer(&mut self) {
        self.answer += 1;
    }

    /// Whether the account of that name was not yet counted for this answer; from now on it is.
    pub(super) fn count(&mut self, name: &Username) -> bool {
        let account = self.accounts.get_mut(name);
        account.is_some_and(|account| std::mem::replace(&mut account.answer, self.answer) != self.answer)
    }

    /// The account of that name, unless it was named before in this round, and whether it counts: it was not yet counted
    /// for this answer, and now is.
    pub(super) fn once(&mut self, name: &[u8]) -> Named<'_> {
        let Some(account) = self.accounts.get_mut(name) else { return Named::Nobody };
        if std::mem::replace(&mut account.round, self.round) == self.round {
            return Named::Again;
        }
        let counts = std::mem::replace(&mut account.answer, self.answer) != self.answer;
        Named::First { account, counts }
    }

    /// The names of all who have a session, in alphabetical order.
    pub(super) fn online(&self) -> impl Iterator<Item = &Username> {
        self.online.iter()
    }
}

#[cfg(test)]
impl Users {
    /// Letters on their way into mailboxes.
    pub(super) fn keeping(&self) -> usize {
        self.accounts.values().map(|account| account.keeping).sum()
    }

    /// How many sessions and users with sessions are in the tables.
    pub(super) fn left(&self) -> usize {
        self.accounts.values().map(|account| account.sessions.len()).sum::<usize>() + self.online.len()
    }
}

fn conns(sessions: Vec<UserSession>) -> Vec<ConnId> {
    sessions.into_iter().map(|session| session.conn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Username {
        Username::new(text).expect("a good name")
    }

    fn with(name_: &str, revision: u64) -> Users {
        let mut users = Users::default();
        assert_eq!(users.apply(name(name_), Standing::Active { revision }), []);
        users
    }

    #[test]
    fn a_proof_from_before_a_revocation_is_void() {
        let mut users = with("alice", 1);
        users.apply(name("alice"), Standing::Active { revision: 5 });
        assert_eq!(users.add(&name("alice"), 1, ConnId(1), false, 9), Err(LoginError::Revoked));
        assert_eq!(users.add(&name("alice"), 5, ConnId(1), false, 9), Ok(()));
        users.apply(name("alice"), Standing::Disabled);
        assert_eq!(users.add(&name("alice"), 5, ConnId(1), false, 9), Err(LoginError::Revoked));
    }

    #[test]
    fn a_change_ends_the_sessions_once() {
        let mut users = with("alice", 1);
        assert_eq!(users.add(&name("alice"), 1, ConnId(1), false, 9), Ok(()));
        assert_eq!(users.apply(name("alice"), Standing::Active { revision: 1 }), []);
        assert_eq!(users.apply(name("alice"), Standing::Removed), [ConnId(1)]);
        assert_eq!(users.online().count(), 0);
        assert!(!users.is_news(&name("alice"), 1), "a removed user's old proof is not news");
        assert!(users.is_news(&name("alice"), 2));
    }

    #[test]
    fn each_name_stands_for_one_in_a_list_and_counts_once_for_an_answer() {
        let mut users = with("alice", 1);
        for _ in 0..2 {
            users.begin_answer();
            for expected in [true, false] {
                users.begin_round();
                assert!(matches!(users.once(b"alice"), Named::First { counts, .. } if counts == expected));
                assert!(matches!(users.once(b"alice"), Named::Again));
            }
            assert!(!users.count(&name("alice")));
        }
        assert!(matches!(users.once(b"bob"), Named::Nobody));
    }
}
