"""Copies of packets with what became of them, taken by a second instance of the program for as long as it lasts."""
