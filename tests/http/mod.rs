mod layers;
mod raw;
mod servers;
mod spans;
mod table;
mod world;
