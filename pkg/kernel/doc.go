// Package kernel holds the facts that decide whether fork() succeeds, and the
// kernel's own rules over them. It is pure: no file is read here, the facts
// come as plain structs and may have been read on another machine.
//
// Quantities are kept in bytes and compared in pages, as the kernel compares
// them. Each rule cites the kernel function that it restates, the file that the
// function is in, and the versions that the restatement holds for;
// docs/model.md tells the same story in prose.
package kernel
