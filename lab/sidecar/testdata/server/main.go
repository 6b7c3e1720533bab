// Command server is the one program of the image that the tests make.
package main

import (
	"cmp"
	"fmt"
	"net/http"
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
	go func() { <-stop; os.Exit(0) }()
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+cmp.Or(os.Getenv("PORT"), "8080"), nil))
	os.Exit(1)
}
