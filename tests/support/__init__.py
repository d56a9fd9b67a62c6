"""Servers, clients, people and accounts that the tests use."""
