//! A second implementation: `oathtool` of the OATH Toolkit, a Debian package.

use std::process::Command;

use keyward::totp::TotpSecret;

use super::Phone;
use crate::support::{
    DAY, SECOND,
    servers::{program, skip},
    stores,
};

#[tokio::test]
async fn codes_of_oathtool_are_accepted_and_no_others() {
    let Some(oathtool) = program(&["oathtool"], &[]) else {
        return skip("oathtool", "apt-get update && apt-get install -y oathtool");
    };
    let mut phone = Phone::new(stores::memory());
    for n in 0..32 {
        let (end, begin) = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".split_at(n);
        phone.secret = TotpSecret::from_base32(&[begin, end].concat()).unwrap();
        phone.service.clock.advance(DAY * 97 + SECOND * 7);
        // From three steps before until three after.
        let from = phone.service.now().before(SECOND * 90).to_string();
        let from = from.replace('T', " ").replace(".000Z", " UTC");
        let args = ["--totp", "--base32", "--window=6", "--now", &from, phone.secret.expose()];
        let shown = Command::new(&oathtool).args(args).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let codes: Vec<_> = shown.lines().collect();
        assert_eq!(codes.len(), 7, "{from}: {shown}");
        for (code, step) in codes.iter().zip(-3_i32..) {
            let right = phone.check(code).await.is_ok();
            assert_eq!(right, (-1..=1).contains(&step), "{n}: {code} of step {step} from {from}");
        }
    }
}
