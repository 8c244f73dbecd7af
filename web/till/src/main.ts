/** Starts the till in the page, and the worker that brings it without a network. */

import { mount } from "svelte";

import App from "./App.svelte";
import "./style.css";

mount(App, { target: document.body });

// Browsers offer it only to pages that came over TLS or from this machine.
if ("serviceWorker" in navigator && import.meta.env.PROD) void navigator.serviceWorker.register("sw.js");
