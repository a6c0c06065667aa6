//! The whole server, as its users see it: real processes, real sockets, real handlers. One file for each behaviour.

#![allow(unreachable_pub, reason = "nothing outside could reach a test")]

mod accounts;
mod bench;
mod bounds;
mod conversations;
mod demo;
mod disk;
mod disk_sweep;
mod disk_trouble;
mod example;
mod fault;
mod federation;
mod handler_answers;
mod handler_children;
mod handler_faults;
mod handler_program;
mod handler_run;
mod handler_transports;
mod informer;
mod instances;
mod mailboxes;
mod malformed;
mod matrix;
mod operator;
mod passwords;
mod power;
mod proxy;
mod pushes;
mod queue;
mod replacing;
mod sessions;
mod smoke;
mod start_stop;
mod tidy;
mod tls;
mod untouched;
mod ways;
mod wire;
mod world;
