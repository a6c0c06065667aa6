//! A message goes from a client through its handler to other clients, over every transport.

use crate::world::{Home, sample};

#[test]
fn a_message_comes_back_over_every_transport() {
    let server = Home::new(&sample("echo"), "", &["alice"]).serve();
    for mut client in [server.connect(), server.connect_tcp6(), server.connect_unix()] {
        client.log_in("alice");
        client.sends_message("echo", r#"{"n":1.0}"#, "m");
        let delivery = client.gets_json();
        assert_eq!(delivery["header"]["messageType"], "receivedMessage");
        assert_eq!(delivery["payload"]["id"], "m");
        let report = client.gets_json();
        assert_eq!(report["header"]["status"], "good");
        assert_eq!(report["payload"]["data"]["delivered"], 1);
        assert_eq!(report["payload"]["data"]["messageId"], delivery["header"]["messageId"]);
    }
    server.stop();
}
