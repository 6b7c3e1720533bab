// Command tool is the one program of the image that the tests make.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	switch os.Args[1] {
	case "wait":
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM)
		<-ended
		os.Exit(7)
	case "read":
		f, err := os.Open(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		_, _ = io.Copy(os.Stdout, f)
	case "count":
		n, _ := io.Copy(io.Discard, os.Stdin)
		fmt.Println(n)
	}
}
