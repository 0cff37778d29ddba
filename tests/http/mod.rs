mod layers;
mod manage;
mod raw;
mod servers;
mod spans;
mod table;
mod world;
