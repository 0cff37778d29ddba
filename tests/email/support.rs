//! A service that sends e-mail to a private mail server.

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

pub struct EmailHarness {
    pub service: Service,
    pub mailer: Mailer,
    pub sink: EmailSink,
}

impl EmailHarness {
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

    /// Waits until no message is pending.
    pub async fn stats(&self) -> MailerStats {
        self.mailer.flush().await;
        self.mailer.stats()
    }

    pub async fn eventually(&self, what: &str, condition: impl Fn(MailerStats) -> bool) {
        eventually(what, async || condition(self.mailer.stats())).await;
    }
}

/// Every account has the address `<account>@example.com`, except `silent`, which has none.
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

/// Returns the only mail whose subject contains this text.
pub fn find_by_subject<'a>(mails: &'a [Mail], subject: &str) -> &'a Mail {
    let mut found = mails.iter().filter(|mail| mail.header("subject").contains(subject));
    let (Some(mail), None) = (found.next(), found.next()) else {
        panic!("expected one mail about {subject}: {mails:#?}")
    };
    mail
}

pub fn address(text: &str) -> EmailAddress {
    text.parse().unwrap()
}

pub const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
