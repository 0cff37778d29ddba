mod layers;
mod manage;
mod raw;
mod servers;
mod sign_in;
mod spans;
mod table;
mod world;
