//! A service whose letters go to a mail server of the test's own.

use async_trait::async_trait;
use keyward::{
    Owner,
    email::{EmailSink, EmailSinkBuilder, Mailer, MailerBuilder, MailerStats, Recipients},
    enroll::{EmailAddress, HostError},
};

use crate::support::{
    Service,
    servers::{
        eventually,
        smtp::{Mail, Server},
    },
    stores,
};

pub struct World {
    pub service: Service,
    pub mailer: Mailer,
    pub sink: EmailSink,
}

impl World {
    pub fn new(server: &Server) -> Self {
        Self::with(server, |mailer| mailer, |sink| sink)
    }

    pub fn with(
        server: &Server,
        mailer: impl FnOnce(MailerBuilder) -> MailerBuilder,
        sink: impl FnOnce(EmailSinkBuilder) -> EmailSinkBuilder,
    ) -> Self {
        let from = address("keys@example.com");
        let mailer = mailer(Mailer::builder(&server.url(), from).unwrap().name("Lua")).build();
        let store = stores::memory();
        let builder = EmailSink::builder(mailer.clone(), Accounts)
            .product("Lua")
            .manage_url("https://example.com/keys?a=1&b=2")
            .names_from_shared(store[0].clone());
        let sink = sink(builder).build();
        let mut service = Service::with(store, |builder| builder.audit(sink.clone()));
        service.actor = service.actor.user_agent(FIREFOX);
        Self { service, mailer, sink }
    }

    /// Once none is on its way.
    pub async fn stats(&self) -> MailerStats {
        self.mailer.flush().await;
        self.mailer.stats()
    }

    pub async fn eventually(&self, what: &str, so: impl Fn(MailerStats) -> bool) {
        eventually(what, async || so(self.mailer.stats())).await;
    }
}

/// Writes to an account under its own name.
pub struct Accounts;

#[async_trait]
impl Recipients for Accounts {
    async fn address_of(&self, owner: &Owner) -> Result<Option<EmailAddress>, HostError> {
        match owner.account() {
            "silent" => Ok(None),
            account => Ok(Some(format!("{account}@example.com").parse()?)),
        }
    }
}

/// The mail about this, of all that came.
pub fn about<'a>(mails: &'a [Mail], subject: &str) -> &'a Mail {
    let mut about = mails.iter().filter(|mail| mail.header("subject").contains(subject));
    let (Some(mail), None) = (about.next(), about.next()) else {
        panic!("not one {subject}: {mails:#?}")
    };
    mail
}

pub fn address(text: &str) -> EmailAddress {
    text.parse().unwrap()
}

pub const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
