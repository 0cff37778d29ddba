//! A comparison with an independent implementation: `oathtool` of the OATH Toolkit, a Debian package.

use std::process::Command;

use keyward::totp::TotpSecret;

use super::TotpHarness;
use crate::support::{
    DAY, SECOND,
    servers::{program, skip},
    stores,
};

#[tokio::test]
async fn only_codes_that_oathtool_generates_for_the_accepted_steps_are_accepted() {
    let Some(oathtool) = program(&["oathtool"], &[]) else {
        return skip("oathtool", "apt-get update && apt-get install -y oathtool");
    };
    let mut harness = TotpHarness::new(stores::memory());
    for n in 0..32 {
        let (end, begin) = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".split_at(n);
        harness.secret = TotpSecret::from_base32(&[begin, end].concat()).unwrap();
        harness.service.clock.advance(DAY * 97 + SECOND * 7);
        // From three steps before to three steps after.
        let from = harness.service.now().before(SECOND * 90).to_string();
        let from = from.replace('T', " ").replace(".000Z", " UTC");
        let args = ["--totp", "--base32", "--window=6", "--now", &from, harness.secret.expose()];
        let shown = Command::new(&oathtool).args(args).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let codes: Vec<_> = shown.lines().collect();
        assert_eq!(codes.len(), 7, "{from}: {shown}");
        for (code, step) in codes.iter().zip(-3_i32..) {
            let accepted = harness.check(code).await.is_ok();
            assert_eq!(
                accepted,
                (-1..=1).contains(&step),
                "{n}: {code} of step {step} from {from}"
            );
        }
    }
}
