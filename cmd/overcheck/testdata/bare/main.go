// Command bare does nothing: what any Go program takes to start.
package main

func main() {}
