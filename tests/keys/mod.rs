mod access;
mod audit;
mod issue;
mod lifecycle;
mod races;
mod redaction;
mod rotate;
mod verify;
