// Package upstream has what pins the modules that programs are built from: for each,
// the go.mod that requires it, names the programs to build ("tool" lines) and pins
// every dependency, the go.sum with the checksums, and, where upstream's main does not
// fit, a main of our own.
//
// It refuses to know what is done with them.
package upstream

import "embed"

// Pins are those files, NAME.mod and NAME.sum for each module.
//
//go:embed *.mod *.sum *.go.txt
var Pins embed.FS
