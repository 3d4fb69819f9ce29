// Package powerloss has the power fail under the load of a whole service, again and again: what was answered has to be there
// when it comes back, whole and once, and what was not is there whole or not at all. It has no code but its tests.
//
// The power fails at the n-th write, name or fsync since it came, n by chance, on a disk that keeps by chance what was not
// synced (package blackout), also while the programs start. make test has it fail a few times, make campaign 200 times.
// A failed run says its seed; the same seed tears the same sectors, but programs do not do the same at the same time twice.
package powerloss
