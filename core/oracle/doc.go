// Package oracle has no code: its tests replay what sessions said to a real
// Postfix through a live session of ours, with policies equal to the Postfix
// configuration of each, and compare what was answered.
//
// The recordings are outside the project (../shared/testdata/postfix-oracle).
// Differences that are meant stand in testdata/exceptions.tsv with the reason;
// one that is not listed fails the test, and so does a listed one that is gone.
//
// # BUGS
//
// EHLO's keywords are not compared: each server offers what it has.
package oracle
