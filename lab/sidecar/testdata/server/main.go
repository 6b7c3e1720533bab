// Command server is the one program of the image that the tests make.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	secret := os.Getenv("SECRET")
	switch os.Getenv("DO") {
	case "end":
		fmt.Fprintln(os.Stderr, "server: starts")
		fmt.Fprintf(os.Stderr, "server: cannot use %s, that is, %q\n", secret, secret)
		os.Exit(3)
	case "idle":
		<-stop
		return
	}
	for _, address := range []string{":8080", ":8443"} {
		if _, err := net.Listen("tcp", address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	<-stop
}
